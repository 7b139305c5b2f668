"""containerd's shim: the Task service over ttrpc, with the runtime in the same program."""
