"""Steps of seccomp filters that few profiles ask for: what a kernel may lack, and the listener of an agent. Pure."""

from __future__ import annotations

from errno import EFAULT, EINVAL, EOPNOTSUPP

from inclavare.container.plan import CALL_STORE, MSG, MSG_LISTENER, SYNC_SLOT, Data, Plan, Slot
from inclavare.linux import headers as k
from inclavare.linux import seccomp
from inclavare.linux.calls import SYS_CLOSE, SYS_READ, SYS_SECCOMP, SYS_WRITE


def ask_kernel(plan: Plan, names: list[str]) -> None:
    """Plan to fail by name where the kernel lacks one of these flags or actions."""
    for name in names:
        words = f"ask the kernel for {name}"
        if name in seccomp.FLAGS:
            bits = seccomp.FLAGS[name]
            if bits == k.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV:
                bits |= k.SECCOMP_FILTER_FLAG_NEW_LISTENER  # refused without
            lacks = {EINVAL: f"linux.seccomp.flags: this kernel has no {name}"}
            # Flags are judged before the filter, which is none.
            plan.add(SYS_SECCOMP, k.SECCOMP_SET_MODE_FILTER, bits, 0, words=words, tolerate=(EFAULT,), sentences=lacks)
        else:
            value = plan.data(seccomp.RETURNS[name].to_bytes(4, "little"))
            lacks = {EOPNOTSUPP: f"linux.seccomp: this kernel has no {name}"}
            plan.add(SYS_SECCOMP, k.SECCOMP_GET_ACTION_AVAIL, 0, value, words=words, sentences=lacks)


def give_listener(plan: Plan, listener: Slot) -> None:
    """Plan to wait until rune took the listener of the filter that was loaded (decision 15).

    From here on the filter judges us: of what it may ask the agent for, only write(2) comes before there is one.
    """
    message = plan.data(MSG.pack(MSG_LISTENER, len(plan.ops) + 1, 0, 0))
    plan.add(CALL_STORE, Data(message + 8), listener, words="name the listener in a message")
    plan.add(SYS_WRITE, SYNC_SLOT, message, MSG.size, words="tell rune of the seccomp listener")
    plan.add(SYS_READ, SYNC_SLOT, message, MSG.size, words="wait until the seccomp agent has it")
    plan.add(SYS_CLOSE, listener, words="close it")
