"""``recbole-ser doctor``."""

from __future__ import annotations

import platform

import click

from recbole_ser import __version__
from recbole_ser.commands.arguments import Command


@click.command(cls=Command, short_help="print versions, devices and known problems")
def command() -> int:
    """Print versions, devices and known incompatibilities, with what to do about them.

    The exit status is 1 if something is known not to work.
    """
    from recbole_ser.compat import known_incompatibilities
    from recbole_ser.environment import devices, installed_versions

    versions = installed_versions()
    if versions["recbole_ser"] is None:
        versions["recbole_ser"] = f"{__version__} (not installed: run from a checkout)"
    print(f"python        {platform.python_version()} on {platform.platform()}")
    for name, version in versions.items():
        print(f"{name:<13} {version or 'not installed'}")
    for line in devices():
        print(f"device        {line}")
    problems = known_incompatibilities(versions)
    for problem, fix in problems:
        print(f"\nproblem: {problem}\n    fix: {fix}")
    if not problems:
        print("\nno known incompatibility")
    return 1 if problems else 0
