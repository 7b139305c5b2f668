from __future__ import annotations

from hypothesis import settings

settings.register_profile("busy", deadline=None)  # a busy machine takes its time
settings.load_profile("busy")
