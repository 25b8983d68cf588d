"""`python -m docs_site`: builds the site into build/site; `--serve` shows it on loopback, and again as pages change."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from docs_site import ROOT
from docs_site.check import not_in_menu, problems
from docs_site.pages import lay_out, site_files
from ratchet.stack.config import SERVICES

BUILD = ROOT / "build"
SHIM = "https://unpkg.com/iframe-worker/shim"
"""What Zensical has pages load so that the search runs from the file system, too."""

PORT = 8010
"""Beside those of the services."""


def main() -> None:
    """Build or serve; exit code 1 where something is wrong with the pages."""
    parser = argparse.ArgumentParser(prog="python -m docs_site", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="serve on loopback, and follow changes of docs/")
    parser.add_argument("--port", type=int, default=PORT, help=f"port of --serve (default: {PORT})")
    given = parser.parse_args()
    shutil.rmtree(BUILD / "pages", ignore_errors=True)
    lay_out_all(BUILD / "pages")
    if given.serve:
        serve(given.port)
    else:
        build()


def lay_out_all(pages: Path) -> None:
    """All that Zensical reads: committed pages, generated ones, configuration and style."""
    # They build the command line and the services' apps, which takes seconds: not for those who only ask for help.
    from docs_site import cli_reference, http_reference, python_reference

    lay_out_committed(pages)
    (pages / "reference" / "cli.md").write_text(cli_reference.page())
    http_reference.write(pages / "reference")
    (pages / "reference" / "python.md").write_text(python_reference.page())
    shutil.copyfile(ROOT / "docs_site" / "site.css", pages / "site.css")
    shutil.copyfile(ROOT / "docs_site" / "zensical.toml", pages.parent / "zensical.toml")


def lay_out_committed(pages: Path) -> None:
    """The committed pages; that of the reference leads to those that are made from the code."""
    lay_out(pages)
    made = ["[Command line](cli.md)", *(f"[HTTP API: {name}](http-{name}.md)" for name in SERVICES)]
    made.append("[Python client](python.md)")
    with (pages / "reference" / "README.md").open("a") as index:
        index.write("\n## Made from the code\n\n" + "".join(f"- {link}\n" for link in made))


def zensical(*arguments: str) -> list[str]:
    """The call of Zensical on what was laid out."""
    return [sys.executable, "-m", "zensical", *arguments, "--config-file", str(BUILD / "zensical.toml")]


def build() -> None:
    """Make build/site, where every warning is an error."""
    # From the root of the checkout, so that zensical.toml can name functions of this package.
    done = subprocess.run(
        zensical("build", "--strict", "--clean"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        # What follows a refusal is a traceback of Zensical's own.
        print((done.stdout + done.stderr).partition("Traceback")[0], file=sys.stderr)
        raise SystemExit("docs_site: there are warnings, so there is no site.")
    load_nothing_from_elsewhere(BUILD / "site")
    found = [*not_in_menu(BUILD / "pages", BUILD / "zensical.toml"), *problems(BUILD / "site")]
    if found:
        print("\n".join(found), file=sys.stderr)
        raise SystemExit(f"docs_site: {len(found)} of these are wrong.")
    count = len(list((BUILD / "site").rglob("*.html")))
    print(f"{count} pages, no warnings: {(BUILD / 'site' / 'index.html').relative_to(ROOT)}")


def load_nothing_from_elsewhere(site: Path) -> None:
    """Put a copy of the one script that pages would load from another site in its place."""
    own = site / "assets" / "javascripts" / "iframe-worker.js"
    shutil.copyfile(ROOT / "docs_site" / "iframe-worker.js", own)
    for page in site.rglob("*.html"):
        page.write_text(page.read_text().replace(SHIM, os.path.relpath(own, page.parent)))


def serve(port: int) -> None:
    """Serve until Ctrl-C, and lay changed pages out again as they change."""
    server = subprocess.Popen(zensical("serve", "--dev-addr", f"127.0.0.1:{port}"), cwd=ROOT)
    known = changed_at()
    try:
        while server.poll() is None:
            time.sleep(1)
            if (now := changed_at()) != known:
                known = now
                lay_out_committed(BUILD / "pages")
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait()


def changed_at() -> dict[str, float]:
    """When each committed file of the site was changed."""
    return {name: (ROOT / name).stat().st_mtime for name in site_files()}


if __name__ == "__main__":
    main()
