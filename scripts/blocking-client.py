"""Makes the blocking client, `client.py`, of the one for asyncio, `aio.py`: the same without `async` and `await`.

    python3 scripts/blocking-client.py            # writes it
    python3 scripts/blocking-client.py --check    # fails if what is there is not that
"""

import pathlib
import re
import subprocess
import sys

CLIENT = pathlib.Path(__file__).parent.parent / "clients" / "python" / "src" / "trine"
MADE = "# Made of aio.py by scripts/blocking-client.py; change that one.\n"
# What is written differently, in this order.
RULES = [
    (r'\A""".*?"""\n', f'"""The blocking client."""\n\n{MADE}'),
    (r'(class AsyncClient:\n    """)A Trine server, for the tasks of event loops\.', r"\1A Trine server. Threads may share one."),
    (r"^import asyncio\n", ""),
    (r"\bAsync(Client|Iterator)\b", r"\1"),
    (r"\b_aio_connections\b", "_connections"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"(?<!\w)\(await ([^()]*\([^()]*\))\)", r"\1"),
    (r"\b(async|await) ", ""),
    (r"for item in page\.items:\n +yield item\n", "yield from page.items\n"),
]


def made() -> str:
    text = (CLIENT / "aio.py").read_text()
    for pattern, replacement in RULES:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE | re.DOTALL if pattern.startswith(r"\A") else re.MULTILINE)
        if not count:
            sys.exit(f"nothing in aio.py is {pattern}: the rule is not needed any more, or the file needs another")
    for command in (["check", "--select", "I", "--fix", "--quiet"], ["format"]):
        told = ["ruff", *command, "--stdin-filename", str(CLIENT / "client.py"), "-"]
        text = subprocess.run(told, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout
    return text


def main() -> None:
    client, text = CLIENT / "client.py", made()
    if "--check" not in sys.argv:
        client.write_text(text)
    elif client.read_text() != text:
        sys.exit("client.py is not what scripts/blocking-client.py makes of aio.py: run that")


main()
