"""As much of containerd as a shim can tell apart from containerd, in one process and without a daemon.

`Containerd` takes the events of shims and knows what each version says to a shim's program; a `Task` is one container
under a shim, from `start` to `delete`. Messages are Google's protobuf by descriptors of our own (schema), frames are
packed by struct: nothing here is rune's codec, so each checks the other. `python3 -m tests.containerd_kit` runs a
container by hand, and prints what is said.

Not here: images and snapshots, and the gRPC side of containerd.
"""

from tests.containerd_kit.bundle import Bundle
from tests.containerd_kit.containerd import Containerd, Task
from tests.containerd_kit.events import Event, Events
from tests.containerd_kit.ttrpc import Client, RpcError

__all__ = ["Bundle", "Client", "Containerd", "Event", "Events", "RpcError", "Task"]
