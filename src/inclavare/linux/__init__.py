"""Linux: constants in the header's spelling, seccomp, cgroups, processes, facts of the host."""
