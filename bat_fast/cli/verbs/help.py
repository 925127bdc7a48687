"""``bat-fast help``."""

from __future__ import annotations

from bat_fast.cli.parser import Parser

SUMMARY = "what a setting is: bat-fast help optim.milestones"


def run(words: list[str]) -> None:
    """Print the text, type, default and range of settings."""
    from bat_fast.cli.manual import describe_setting, markdown

    parser = Parser("help", "What a setting is, what it takes, its default and its range.")
    parser.add_argument(
        "setting", nargs="*", help="such as optim.milestones; a group (optim), a method (trades)"
    )
    parser.add_argument("--markdown", action="store_true", help="print docs/settings.md")
    options = parser.parse_args(words)
    if options.markdown:
        print(markdown(), end="")
    elif options.setting:
        print("\n\n".join(map(describe_setting, options.setting)))
    else:
        parser.print_help()
