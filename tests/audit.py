"""Ask an advisory service for known vulnerabilities of pinned packages, by pip-audit.

    python tests/audit.py constraints.txt

Exits with 0 if there are none, 1 if there are, 75 if the service can't be reached or doesn't know the packages: then
nothing was audited, and it says so. With --if-reachable that is told as loudly, but ends with 0, for machines without
network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

_NOT_DONE = 75


def audited(file: Path) -> tuple[int, str]:
    """Return an exit code, as above, and what to say of one file."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(file), "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run([*command, "--progress-spinner", "off", "--timeout", "15"], capture_output=True, text=True)
    return judged(file, done.returncode, done.stdout, done.stderr)


def judged(file: Path, code: int, out: str, err: str) -> tuple[int, str]:
    """Return an exit code and what to say, of what pip-audit has ended with and printed."""
    try:
        found = json.loads(out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = next((line for line in reversed(err.splitlines()) if line.strip()), f"pip-audit ended with {code}")
        return _NOT_DONE, f"{file}: NOT AUDITED, the advisory service can't be asked: {reason[:300]}"
    skipped = [one["name"] for one in found if "skip_reason" in one]
    bad = [(one, hole) for one in found for hole in one.get("vulns", ())]
    lines = [
        f"{file}: {one['name']} {one['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'none'}"
        for one, hole in bad
    ]
    if skipped:
        more = f" and {len(skipped) - 8} more" if len(skipped) > 8 else ""
        lines.append(f"{file}: NOT AUDITED, unknown to the advisory service: {', '.join(skipped[:8])}{more}")
    lines.append(
        f"{file}: {len(found) - len(skipped)} of {len(found)} packages audited, {len(bad)} vulnerabilities known"
    )
    return 1 if bad else _NOT_DONE if skipped or not found else 0, "\n".join(lines)


def main() -> int:
    """Audit files of pinned packages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--if-reachable", action="store_true")
    told = parser.parse_args()
    codes = []
    for file in told.files:
        code, text = audited(file)
        codes.append(code)
        print(text, file=sys.stderr if code else sys.stdout, flush=True)
    worst = 1 if 1 in codes else max(codes)
    return 0 if worst == _NOT_DONE and told.if_reachable else worst


if __name__ == "__main__":
    sys.exit(main())
