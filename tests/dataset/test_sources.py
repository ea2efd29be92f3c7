"""Folders and archives as people have them: the same images, or a refusal that names the file."""

import gzip
import io
import lzma
import os
import random
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tlcluster.cinic10 import CLASSES, SPLITS
from tlcluster.dataset import arrange as arrange_module
from tlcluster.dataset import unpack as unpack_module
from tlcluster.dataset.arrange import MAX_IMAGE_BYTES, Found, Source, arrange
from tlcluster.dataset.sources import open_source
from tlcluster.errors import UserError

LAYOUT = (
    "a data set is train, valid and test, each with one folder per class, with .png or .jpg files "
    "inside"
)


def contents(folder: Path) -> dict[str, bytes]:
    """Path inside the folder → bytes, in order of paths."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def images(source: Source) -> dict[str, bytes]:
    return {
        f"{split}/{source.classes[image.label]}/{image.name}": source.read(image)
        for split, found in source.images.items()
        for image in found
    }


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def opened(scratch: Path) -> Callable[[Path | str], Source]:
    return lambda source: open_source(str(source), scratch, scratch, show=False)


@pytest.fixture
def refusal(scratch: Path) -> Callable[[Path | str], str]:
    def refuse(source: Path | str) -> str:
        with pytest.raises(UserError) as caught:
            open_source(str(source), scratch, scratch, show=False)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refuse


def pack_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("top", ["", "./", "CINIC-10/", "./cinic10-cifar-part/"])
@pytest.mark.parametrize("kind", [".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip", "folder"])
def test_every_kind_of_source_has_the_same_images(
    kind: str, top: str, tiny_cinic: Path, pack_tar: Callable[..., Path], tmp_path: Path,
    opened: Callable[[Path | str], Source],
) -> None:  # fmt: skip
    expected = contents(tiny_cinic)
    shuffled = list(expected.items())
    random.Random(1).shuffle(shuffled)  # noqa: S311
    files = {top + name: data for name, data in shuffled}
    if kind == "folder":
        source = tmp_path / "folder"
        for name, data in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
    elif kind == ".zip":
        source = pack_zip(tmp_path / "a.zip", files)
    else:
        mode = {".tar": "w", ".tar.xz": "w:xz"}.get(kind, "w:gz")
        source = pack_tar(f"a{kind}", files, mode)
    assert images(opened(source)) == expected
    assert len(expected) == 90


def test_what_the_tar_command_packs_can_be_read(
    tiny_cinic: Path, tmp_path: Path, opened: Callable[[Path | str], Source]
) -> None:
    long = tiny_cinic / "train" / "cat" / f"{'long-name' * 20}.png"
    long.write_bytes(b"data")
    for flag, name in (("--format=gnu", "gnu.tar"), ("--format=pax", "pax.tar.gz")):
        path = tmp_path / name
        subprocess.run(["tar", "-caf", path, flag, "-C", tiny_cinic.parent, "tiny"], check=True)
        assert images(opened(path)) == contents(tiny_cinic)


def test_a_folder_may_be_made_of_links(
    tiny_cinic: Path, tmp_path: Path, opened: Callable[[Path | str], Source]
) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for split in SPLITS:
        (linked / split).symlink_to(tiny_cinic / split)
    assert images(opened(linked)) == contents(tiny_cinic)


def test_what_lies_beside_the_splits_or_is_hidden_is_ignored(
    tiny_cinic: Path,
    pack_tar: Callable[..., Path],
    tmp_path: Path,
    opened: Callable[[Path | str], Source],
) -> None:
    expected = contents(tiny_cinic)
    extra = {
        "README.md": b"",
        "imagenet-contributors.csv": bytes(MAX_IMAGE_BYTES + 1),
        "figures/overview.png": b"",
        ".DS_Store": b"",
        "train/.DS_Store": b"",
        "train/cat/.DS_Store": b"",
        "train/cat/._cifar-10-train-1.jpg": b"",
        ".git/train/cat/1.png": b"",
    }
    mac = {"__MACOSX/train/cat/._1.png": b""}
    assert images(opened(pack_tar("a.tar", {**expected, **extra, **mac}))) == expected
    assert images(opened(pack_zip(tmp_path / "a.zip", {**expected, **extra, **mac}))) == expected
    for name, data in extra.items():
        (tiny_cinic / name).parent.mkdir(parents=True, exist_ok=True)
        (tiny_cinic / name).write_bytes(data)
    assert images(opened(tiny_cinic)) == expected


LITTER = [
    "train/cat/Thumbs.db",
    "train/desktop.ini",
    "train/cat/Desktop.ini",
    "train/cat/@eaDir/1.jpg@SynoEAStream",
    "train/@eaDir/1.jpg",
    "@eaDir/train/cat/1.jpg",
    "#recycle/train/cat/1.png",
    "$RECYCLE.BIN/train/cat/1.png",
    "valid/System Volume Information/1.png",
    "valid/lost+found/1.png",
]


def test_litter_of_windows_and_of_storage_appliances_is_ignored(
    tiny_cinic: Path, pack_tar: Callable[..., Path], tmp_path: Path,
    opened: Callable[[Path | str], Source],
) -> None:  # fmt: skip
    expected = contents(tiny_cinic)
    littered = {**expected, **dict.fromkeys(LITTER, b"x")}
    assert images(opened(pack_tar("a.tar", littered))) == expected
    assert images(opened(pack_zip(tmp_path / "a.zip", littered))) == expected
    for name in LITTER:
        (tiny_cinic / name).parent.mkdir(parents=True, exist_ok=True)
        (tiny_cinic / name).write_bytes(b"x")
    assert images(opened(tiny_cinic)) == expected


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_backslashes_in_an_archive_of_windows_are_separators(
    kind: str, tiny_cinic: Path, pack_tar: Callable[..., Path], tmp_path: Path,
    opened: Callable[[Path | str], Source],
) -> None:  # fmt: skip
    expected = contents(tiny_cinic)
    files = {f"CINIC-10\\{name}".replace("/", "\\"): data for name, data in expected.items()}
    files["CINIC-10\\train\\"] = b""  # as folders are written there
    path = pack_tar("a.tar", files) if kind == "tar" else pack_zip(tmp_path / "a.zip", files)
    assert images(opened(path)) == expected


@pytest.mark.parametrize("part", ["class", "file"])
def test_a_name_that_no_file_system_holds_is_refused_and_cut_in_the_message(
    part: str, tiny_cinic: Path, pack_tar: Callable[..., Path],
    refusal: Callable[[Path | str], str],
) -> None:  # fmt: skip
    long = "ä" * 6000
    name = f"train/{long}/1.png" if part == "class" else f"train/cat/{long}.png"
    path = pack_tar("a.tar", {**contents(tiny_cinic), name: b"x"})
    message = refusal(path)
    assert message.endswith("characters) has a name of more than 255 bytes; rename it")
    assert len(message) < 400


def test_a_source_without_an_end_is_refused_before_it_is_read(
    tmp_path: Path, refusal: Callable[[Path | str], str]
) -> None:
    pipe, zeros = tmp_path / "pipe.tar", tmp_path / "zeros.tar.gz"
    os.mkfifo(pipe)
    zeros.symlink_to("/dev/zero")
    for path in (pipe, zeros):
        assert refusal(path) == (
            f"{path}: is a pipe, socket or device; give a folder or the file of an archive"
        )


def test_a_link_to_itself_is_refused(
    tiny_cinic: Path, refusal: Callable[[Path | str], str]
) -> None:
    for place in ("train/cat/a.png", "train/more", "other"):
        link = tiny_cinic / place
        link.symlink_to(link.name)
    assert "train/cat/a.png" in refusal(tiny_cinic)
    (tiny_cinic / "train/cat/a.png").unlink()
    assert "train/more" in refusal(tiny_cinic)
    assert refusal(tiny_cinic / "other").endswith("no such file or folder; check the path")


def test_suffixes_may_be_of_any_case(
    tiny_cinic: Path, opened: Callable[[Path | str], Source]
) -> None:
    for name in ("a.PNG", "b.JPEG", "c.Jpg"):
        (tiny_cinic / "train" / "cat" / name).write_bytes(b"data")
    assert len(opened(tiny_cinic).images["train"]) == 33


PROBLEMS = {
    "train/notes.txt": f"is a file between the class folders; {LAYOUT}",
    "valid/cat/notes.txt": "is no .png or .jpg; convert it, or move it out of the class folder",
    "valid/cat/more/1.png": f"is or is in a folder inside a class; {LAYOUT}",
    "valid/cat/\u202e.png": "has a name that cannot be printed; rename it",
    "valid/\x1b[2J/1.png": "is in a folder whose name cannot be printed; rename it",
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("kind", ["tar", "zip", "folder"])
def test_a_file_that_does_not_belong_there_is_named(
    kind: str, name: str, tiny_cinic: Path, pack_tar: Callable[..., Path], tmp_path: Path,
    refusal: Callable[[Path | str], str],
) -> None:  # fmt: skip
    (tiny_cinic / name).parent.mkdir(parents=True, exist_ok=True)
    (tiny_cinic / name).write_bytes(b"data")
    files = contents(tiny_cinic)
    source = {
        "tar": lambda: pack_tar("a.tar", files),
        "zip": lambda: pack_zip(tmp_path / "a.zip", files),
        "folder": lambda: tiny_cinic,
    }[kind]()
    shown = "valid/cat/more/" if (kind, name) == ("folder", "valid/cat/more/1.png") else name
    assert refusal(source) == f"{source}: {shown!r} {PROBLEMS[name]}"


def test_what_is_no_plain_file_is_refused(
    tiny_cinic: Path, refusal: Callable[[Path | str], str]
) -> None:
    os.mkfifo(tiny_cinic / "valid" / "cat" / "pipe.png")
    assert refusal(tiny_cinic) == (
        f"{tiny_cinic}: 'valid/cat/pipe.png' is a pipe, socket or device; remove it"
    )


def test_a_missing_split_or_class_is_named(
    tiny_cinic: Path, refusal: Callable[[Path | str], str]
) -> None:
    shutil.rmtree(tiny_cinic / "valid" / "dog")
    (tiny_cinic / "valid" / "dog").mkdir()
    assert refusal(tiny_cinic) == (
        f"{tiny_cinic}: there is no image in 'valid/dog', but 'train/dog' has some; every split "
        "needs images of every class"
    )
    shutil.rmtree(tiny_cinic / "test")
    assert refusal(tiny_cinic) == f"{tiny_cinic}: there is no image in 'test'; {LAYOUT}"


def test_a_folder_that_is_no_data_set_is_told_what_there_is(
    tiny_cinic: Path,
    pack_tar: Callable[..., Path],
    tmp_path: Path,
    refusal: Callable[[Path | str], str],
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    nothing = f"there is no folder 'train', 'valid' or 'test'; {LAYOUT}; the folders there are:"
    assert refusal(empty) == f"{empty}: {nothing} none"
    tar = pack_tar("a.tar", {"training/cat/1.png": b"", "x/1.png": b""})
    assert refusal(tar) == f"{tar}: {nothing} 'training', 'x'"
    listed = ", ".join(map(repr, CLASSES))
    assert refusal(tiny_cinic / "train") == f"{tiny_cinic}/train: {nothing} {listed}"
    tar = pack_tar("b.tar", {"\x1b]0;title\x07/1.png": b""})
    assert refusal(tar) == f"{tar}: {nothing} '\\x1b]0;title\\x07'"


def test_of_two_data_sets_in_one_folder_none_is_guessed(
    tiny_cinic: Path, refusal: Callable[[Path | str], str]
) -> None:
    shutil.copytree(tiny_cinic, tiny_cinic.parent / "other")
    for left in tiny_cinic.parent.iterdir():
        if left.name not in ("tiny", "other"):
            shutil.rmtree(left)
    (tiny_cinic.parent / "scratch").mkdir()
    assert refusal(tiny_cinic.parent) == (
        f"{tiny_cinic.parent}: there are several data sets: 'other', 'tiny'; name one of them"
    )


def test_two_files_of_one_name_are_refused(
    tiny_cinic: Path, tmp_path: Path, refusal: Callable[[Path | str], str]
) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(tiny_cinic, ".")
        archive.add(tiny_cinic / "train" / "cat", "./train/cat")
    first = min((tiny_cinic / "train" / "cat").iterdir()).name
    assert refusal(path) == f"{path}: 'train/cat/{first}' is there twice; leave one"


UNSAFE = [
    ".",
    "../train/cat/1.png",
    "/train/cat/1.png",
    "train/../../1.png",
    "..\\1.png",
    "\\\\server\\share\\1.png",
    "C:/1.png",
    "C:\\1.png",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_a_name_that_leads_out_of_the_archive_is_refused(
    name: str, tiny_cinic: Path, pack_tar: Callable[..., Path], tmp_path: Path,
    refusal: Callable[[Path | str], str],
) -> None:  # fmt: skip
    files = {**contents(tiny_cinic), name: b"data"}
    for path in (pack_tar("a.tar", files), pack_zip(tmp_path / "a.zip", files)):
        assert refusal(path) == (
            f"{path}: {name!r} leads out of the archive; this is no safe archive"
        )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_an_archive_are_refused(
    kind: bytes, tiny_cinic: Path, tmp_path: Path, refusal: Callable[[Path | str], str]
) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tiny_cinic, ".")
        info = tarfile.TarInfo("train/cat/1.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert refusal(path) == (
        f"{path}: 'train/cat/1.png' is a link or a device; an archive of images has files and "
        "folders only: pack it again with the files that links stand for (tar --dereference)"
    )


def test_links_and_secrets_in_a_zip_are_refused(
    tmp_path: Path, refusal: Callable[[Path | str], str]
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("train/cat/1.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert refusal(path) == (
        f"{path}: 'train/cat/1.png' is a link or a device; an archive of images has files and "
        "folders only: pack it again with the files that links stand for (tar --dereference)"
    )
    data = bytearray(pack_zip(path, {"train/cat/1.png": b"data"}).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    assert refusal(path) == (
        f"{path}: 'train/cat/1.png' is encrypted; unpack the archive and name the folder"
    )


def test_an_image_that_unpacks_to_something_huge_is_refused(
    pack_tar: Callable[..., Path], tmp_path: Path, refusal: Callable[[Path | str], str]
) -> None:
    huge = {"train/cat/1.png": bytes(MAX_IMAGE_BYTES + 1)}
    for path in (pack_tar("a.tar.xz", huge, "w:xz"), pack_zip(tmp_path / "a.zip", huge)):
        assert path.stat().st_size < 20_000
        assert refusal(path) == (
            f"{path}: 'train/cat/1.png' unpacks to 10,485,761 bytes; an image has at most "
            "10,485,760; remove it or make it smaller"
        )


def test_a_header_that_unpacks_to_something_huge_is_refused(
    tmp_path: Path, refusal: Callable[[Path | str], str]
) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 2**30
    path = tmp_path / "a.tar"
    path.write_bytes(header.tobuf())
    assert refusal(path) == (
        f"{path}: the archive is damaged or cut short (a header of {2**30} bytes); fetch it again"
    )


def test_more_files_than_memory_is_for_are_refused(
    tiny_cinic: Path, pack_tar: Callable[..., Path], refusal: Callable[[Path | str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(arrange_module, "MAX_FILES", 89)
    for source in (tiny_cinic, pack_tar("a.tar", contents(tiny_cinic))):
        assert refusal(source) == (
            f"{source}: there are more than 89 files; name a part of the data set"
        )


@pytest.mark.parametrize("kind", [".tar", ".tar.gz", ".tar.xz", ".zip"])
def test_an_archive_that_was_cut_short_is_never_taken_for_a_whole_one(
    kind: str, tiny_cinic: Path, pack_tar: Callable[..., Path], tmp_path: Path,
    refusal: Callable[[Path | str], str], opened: Callable[[Path | str], Source],
) -> None:  # fmt: skip
    files = contents(tiny_cinic)
    files["valid/ship/zz.png"] = b"x" * 512  # the last file ends on a block of tar
    if kind == ".zip":
        path = pack_zip(tmp_path / "a.zip", files)
    else:
        path = pack_tar(f"a{kind}", files, {".tar": "w", ".tar.xz": "w:xz"}.get(kind, "w:gz"))
    whole = path.read_bytes()
    end = len(whole) - 1
    if kind == ".tar":  # it ends with a block of zeros; what comes behind is padding
        end = len(whole.rstrip(b"\0")) + 511
    for length in {0, 1, 100, len(whole) // 3, len(whole) // 2, end - 512, end - 511, end - 1, end}:
        path.write_bytes(whole[:length])
        assert refusal(path).startswith(f"{path}: the archive is damaged or cut short (")
    path.write_bytes(whole)
    assert len(images(opened(path))) == 91


@pytest.mark.parametrize("kind", [".tar", ".tar.gz", ".zip"])
def test_a_damaged_archive_is_refused_or_has_its_damage_in_an_image(
    kind: str, tiny_cinic: Path, pack_tar: Callable[..., Path], tmp_path: Path, scratch: Path
) -> None:
    """Any wrong bytes give one line and no traceback."""
    files = contents(tiny_cinic)
    path = tmp_path / f"a{kind}"
    if kind == ".zip":
        pack_zip(path, files)
    else:
        pack_tar(path.name, files, "w:gz" if kind == ".tar.gz" else "w")
    whole = path.read_bytes()
    generator = random.Random(524)  # noqa: S311
    refused = []
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(generator.choice([1, 1, 3, 30])):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            open_source(str(path), scratch, scratch, show=False)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert not any("\n" in text for text in refused)


def test_what_is_no_archive_is_refused_with_what_can_be_read(
    tmp_path: Path, refusal: Callable[[Path | str], str]
) -> None:
    way_out = (
        "not a folder and not an archive that can be read; a source is a folder, .tar, .tar.gz, "
        ".tgz, .tar.xz, .zip, or https:// and one of these"
    )
    path = tmp_path / "cinic.rar"
    path.touch()
    assert refusal(path) == f"{path}: {way_out}"
    assert refusal("s3://bucket/cinic") == f"s3://bucket/cinic: {way_out}"
    assert refusal("https://host/page?key=secret") == f"https://host/page: {way_out}"
    assert refusal(tmp_path / "none") == f"{tmp_path}/none: no such file or folder; check the path"
    for name, damage in (("a.tar.gz", gzip.compress(b"text")), ("a.tar.xz", lzma.compress(b""))):
        (tmp_path / name).write_bytes(damage)
        assert refusal(tmp_path / name).startswith(f"{tmp_path}/{name}: the archive is damaged")


def test_an_empty_image_is_kept_for_the_decoder_to_refuse(
    tiny_cinic: Path, pack_tar: Callable[..., Path], opened: Callable[[Path | str], Source]
) -> None:
    files = {**contents(tiny_cinic), "train/cat/0.png": b""}
    assert images(opened(pack_tar("a.tar", files))) == files


def test_a_large_file_is_read_to_just_above_the_limit(
    tiny_cinic: Path, opened: Callable[[Path | str], Source]
) -> None:
    (tiny_cinic / "train" / "cat" / "0.png").write_bytes(bytes(MAX_IMAGE_BYTES * 2))
    sizes = sorted(map(len, images(opened(tiny_cinic)).values()))
    assert sizes[-1] == MAX_IMAGE_BYTES + 1


def test_of_several_problems_the_first_by_path_is_told_whatever_the_order() -> None:
    names = ["train/cat/b.txt", "train/cat/a.txt", "valid/x/1.png"]
    for order in (names, names[::-1]):
        with pytest.raises(UserError, match=r"train/cat/a\.txt"):
            arrange("x", Path("x"), [Found(name) for name in order])


def test_the_tar_module_is_not_left_with_what_it_has_seen(
    pack_tar: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory would grow with the archive."""
    path = pack_tar("a.tar", {f"train/cat/{number}.png": b"x" for number in range(100)})
    archives: list[tarfile.TarFile] = []
    real = tarfile.open

    def watch(*args: object, **kwargs: object) -> tarfile.TarFile:
        archives.append(real(*args, **kwargs))  # type: ignore[call-overload]
        return archives[-1]

    monkeypatch.setattr(tarfile, "open", watch)
    members = unpack_module._tar("a", io.BytesIO(path.read_bytes()), 2**30)
    held = [len(archives[0].members) for _ in members]  # type: ignore[attr-defined]
    assert len(held) == 100
    assert max(held) <= 1
