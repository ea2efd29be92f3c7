"""Write the report of a run again, from its records: python jobs/report.py --run URL."""

from collections.abc import Sequence

from tlcluster.cli import OK, command, parse
from tlcluster.settings import ReportSettings

ABOUT = (
    "Write the report of a run from its records. The run may be finished, interrupted or still "
    "running. The last line is the path of the report."
)


def main(argv: Sequence[str]) -> int:
    settings = parse(ReportSettings, "jobs/report.py", ABOUT, argv)
    # Matplotlib and scikit-learn take seconds to import; --help and wrong flags need neither.
    from tlcluster.report.runs import open_run
    from tlcluster.report.write import write_report

    store = open_run(settings.run)
    index = write_report(store)
    print(f"{store.url}/{index}")
    return OK


if __name__ == "__main__":
    command(main)
