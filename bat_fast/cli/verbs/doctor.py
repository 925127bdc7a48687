"""``bat-fast doctor``."""

from __future__ import annotations

from bat_fast.cli.parser import Parser

SUMMARY = "what keeps this installation from being fast, and how to cure it"


def run(words: list[str]) -> None:
    """Print what was looked at; the exit status is 1 where something is wrong."""
    about = "What keeps this installation from being fast, or from working, and how to cure it."
    Parser("doctor", about).parse_args(words)
    from bat_fast.report.doctor import diagnose, print_findings
    from bat_fast.report.machine import probe

    findings = diagnose(probe())
    print_findings(findings)
    if any(finding.wrong for finding in findings):
        raise SystemExit(1)
