"""What the driver and a process that sends to a tracker say to each other, as lines of JSON."""

from pydantic import BaseModel, ConfigDict


class Order(BaseModel):
    """What to send where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    """Its class `Sink` sends."""
    run: str
    """Address of the run's folder."""
    keys: frozenset[str] | None
    """The folders of the replicates that the driver trains; None: send what there is of all."""


class Note(BaseModel):
    """What a person should read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    last: bool = False
    sent: bool = False
    """Of the last note: whether the tracker has everything. `text` is where, or why not."""
