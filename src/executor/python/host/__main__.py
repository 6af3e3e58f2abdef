"""Trine's Python host: runs users' functions for the server, which is at the other end of this process's standard input.

    python -I -u host/__main__.py async|threads|processes

`async` runs many jobs on one asyncio loop, where a function that does not await holds up all others; `threads` runs each job on a
thread of a pool, where the GIL shows; `processes` runs one job after the other in the main thread and has the process to itself.

Both sides send frames: four bytes of length, big-endian, then an object with one key in UTF-8 JSON. The server says `setup` once, then
`run` and `stop`; this process says `ready` once, then `log` and `progress` as they come, and `done` once for each `run`. It answers a
`ping` with a `pong` as soon as no job keeps it from that, and halts, if it can, a job that it is to `leave`. A `run` with
`behind` may come to `processes` while another job runs; instead of beginning it, this process may say `returned`.

A host stays warm. Code is compiled once, so the globals of a module live on from one job to the next, and so do the working folder,
the environment and whatever else a process has.

To read it in order: `running`, `exceptions`; `messages`, `channel`; `code`, `archive`, `library`, `pickles`; `usage`, `meter`; `logs`,
`errors`; `jobs`; `host`, and its three kinds `loop` with its `selector` and `helpers`, `threads` and `processes`; `trine`, `start`. None
imports from a later one.
"""

import os
import sys
import types

# This folder as a package that is not on `sys.path`: whatever users' modules are called, none of them meets one of these.
package = sys.modules["_trine_host"] = types.ModuleType("_trine_host")
package.__path__ = [os.path.dirname(__file__)]

from _trine_host.start import main  # noqa: E402

main(sys.argv[1])
