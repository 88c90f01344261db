"""Put the demo on a Hugging Face Space: `python -m demo.deploy OWNER/NAME [--private] [--dry-run]`.

Uploads what the Space needs of this checkout in one commit, large files included, and takes away what an earlier upload
left there. A Space installs its requirements.txt before it has the repository, so that file is written for it, from
pyproject.toml. Log in first (`hf auth login`, or the environment variable HF_TOKEN).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

ROOT = Path(__file__).resolve().parent.parent
# What only developers need; the leaderboard's table is shown by the demo.
LEFT_OUT = ("tests/", ".ci/", "benchmarks/results/quality", "benchmarks/testset_small/", "benchmarks/methods/weights/")
KEPT_THERE = {".gitattributes"}  # made by the hub


def space_files() -> list[str]:
    """The tracked files that a Space needs, as paths from the root.

    Raises:
        OSError, subprocess.CalledProcessError: this is no git checkout.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and not name.startswith(LEFT_OUT)]


def space_requirements() -> str:
    """The text of the Space's requirements.txt: what the library and the demo depend on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    return "# Written by demo/deploy.py from pyproject.toml.\n" + "\n".join(lines) + "\n"


def deploy(space: str, private: bool, api: HfApi) -> str:
    """Create the Space if there is none, and make its files those of this checkout; the Space's address."""
    api.create_repo(space, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
    names = space_files()
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, ROOT / name) for name in names if name != "requirements.txt"
    ]
    operations.append(CommitOperationAdd("requirements.txt", space_requirements().encode()))
    gone = set(api.list_repo_files(space, repo_type="space")) - set(names) - {"requirements.txt"} - KEPT_THERE
    operations += [CommitOperationDelete(name) for name in sorted(gone)]
    api.create_commit(space, operations, commit_message="Deploy EARTalking", repo_type="space")
    return f"https://huggingface.co/spaces/{space}"


def main(argv: list[str] | None = None, api: HfApi | None = None) -> int:
    """Run the command; 0, or 2 after one line that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m demo.deploy", description="Put the demo on a Hugging Face Space.")
    parser.add_argument("space", metavar="OWNER/NAME")
    parser.add_argument("--private", action="store_true", help="only you can see it (where it is new)")
    parser.add_argument("--dry-run", action="store_true", help="list what would be uploaded, and upload nothing")
    args = parser.parse_args(argv)
    try:
        if args.dry_run:
            sizes = {name: (ROOT / name).stat().st_size for name in space_files()}
            for name, size in sizes.items():
                print(f"{size:>10}  {name}")
            print(f"{sum(sizes.values()) / 1e6:.1f} MB in {len(sizes)} files for {args.space}")
        else:
            print(deploy(args.space, args.private, api or HfApi()))
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OSError,
        subprocess.CalledProcessError,
    ) as error:
        print(f"{args.space}: {str(error).strip().splitlines()[0]}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
