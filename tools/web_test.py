"""Runs the kernels in a browser and holds the results to the promise on numbers.

    tools/web_test.py [--open] [--full] [--keep FOLDER] COMMAND...

COMMAND is the normkit command, as in `cargo run --release -p normkit-cli --`. This script serves the page in web/ to a
headless Chromium on the software adapter; the page says what its adapter is; `normkit export` writes the cases for
such an adapter; the page runs them and sends back what they wrote; `normkit judge` has the last word, and its exit
code is this script's. With --open no browser is started, so that you can try your own, on your own GPU.

It needs nothing but Python and a browser: one page of our own asks for no driver of browsers.
"""

import argparse
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).resolve().parent.parent
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
HINT = (
    "a Chromium or Chrome with WebGPU is needed: `tools/setup.sh browser` installs Debian's; another one's path goes "
    "into the environment variable NORMKIT_BROWSER"
)
# Seconds without a word from the page. The export and a case take a few.
PATIENCE = 120
# Shaders of each kernel, dtype and way to share a row: the software adapter compiles one for seconds.
SHADERS = 6
TYPES = {".html": "text/html", ".js": "text/javascript", ".json": "application/json"}


class Run:
    """One run: where its files are, and how it ended."""

    def __init__(self, command, folder, full):
        self.command = command
        self.folder = folder
        self.full = full
        self.heard = time.monotonic()
        self.ended = threading.Event()
        # The exit code, and what was wrong where nothing could be judged.
        self.code = 2
        self.failure = None

    def fail(self, reason):
        self.failure = reason
        self.ended.set()

    def normkit(self, *arguments):
        # Silence of the page is no fault meanwhile.
        self.heard = math.inf
        done = subprocess.run([*self.command, *arguments], cwd=ROOT, capture_output=True, text=True)
        self.heard = time.monotonic()
        return done

    def export(self, about):
        """Exports the cases for the page's adapter and returns the manifest."""
        print(f"web-test: {about['name']} in {about['browser']}", flush=True)
        options = [] if self.full else ["--quick", "--shaders", str(SHADERS)]
        smallest, largest = about["subgroups"] or (0, 0)
        # As on native adapters: shuffles only where all subgroups have one size.
        one_size = smallest == largest and 4 <= smallest <= 128
        if one_size:
            options += ["--subgroup-size", str(smallest)]
        print(f"web-test: subgroups of {smallest}" if one_size else "web-test: no subgroups of one size", flush=True)
        done = self.normkit("export", str(self.folder), *options)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        print(f"web-test: {done.stdout.strip()}", flush=True)
        return (self.folder / "manifest.json").read_bytes()

    def judge(self):
        done = self.normkit("judge", str(self.folder))
        print(done.stdout + done.stderr, flush=True)
        self.code = done.returncode
        return (done.stdout + done.stderr).encode()


def handler(run):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, body, kind="text/plain", status=200):
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            run.heard = time.monotonic()
            page = re.fullmatch(r"/([a-z]+\.(?:html|js))?", self.path)
            stored = re.fullmatch(r"/export/((?:memory|shaders)/[0-9a-f]+\.(?:bin|wgsl))", self.path)
            if page:
                path = ROOT / "web" / (page[1] or "index.html")
            elif stored:
                path = run.folder / stored[1]
            else:
                path = None
            if path is None or not path.is_file():
                return self.answer(b"not here", status=404)
            self.answer(path.read_bytes(), TYPES.get(path.suffix, "application/octet-stream"))

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            run.heard = time.monotonic()
            try:
                result = re.fullmatch(r"/results/([0-9]+\.(?:bin|error))", self.path)
                if result:
                    (run.folder / "results" / result[1]).write_bytes(body)
                    self.answer(b"")
                elif self.path == "/export":
                    self.answer(run.export(json.loads(body)), "application/json")
                elif self.path == "/judge":
                    self.answer(run.judge())
                    run.ended.set()
                elif self.path == "/failed":
                    self.answer(b"")
                    run.fail(body.decode())
                else:
                    self.answer(b"not here", status=404)
            except (OSError, RuntimeError, ValueError, KeyError) as error:
                self.answer(str(error).encode(), status=500)
            run.heard = time.monotonic()

        def log_message(self, *_):
            pass

    return Handler


def browser():
    """The browser's path, or None."""
    named = os.environ.get("NORMKIT_BROWSER")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)


def start(path, url, profile):
    # Without a sandbox, since containers have none to offer; the page is our own. SwiftShader, so that the result
    # does not depend on the machine.
    options = ["--headless", "--no-sandbox", "--no-first-run", f"--user-data-dir={profile}", "--enable-unsafe-webgpu"]
    options += ["--enable-features=Vulkan", "--use-webgpu-adapter=swiftshader"]
    log = open(pathlib.Path(profile) / "stderr", "w")
    return subprocess.Popen([path, *options, url], stdout=log, stderr=log)


def wait(run, process):
    """Waits for the end, the browser's death or silence."""
    while not run.ended.wait(1):
        if process and process.poll() is not None:
            run.fail(f"the browser ended with code {process.returncode}")
        elif process and time.monotonic() - run.heard > PATIENCE:
            run.fail(f"nothing was heard from the page for {PATIENCE} s")


def main():
    parser = argparse.ArgumentParser(description="Run the kernels in a browser and judge the results.")
    parser.add_argument("--open", action="store_true", help="start no browser: print the address for your own")
    parser.add_argument("--full", action="store_true", help="all cases, which takes long")
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER", help="export to this new folder and keep it")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the normkit command")
    arguments = parser.parse_args()
    path = None if arguments.open else browser()
    if not arguments.open and path is None:
        sys.exit(f"web-test: no browser found; {HINT}")
    with tempfile.TemporaryDirectory(prefix="normkit-web-", ignore_cleanup_errors=True) as temporary:
        folder = arguments.keep or pathlib.Path(temporary) / "export"
        run = Run(arguments.command, folder.resolve(), arguments.full)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(run))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        process = None
        if arguments.open:
            print(f"web-test: open {url}", flush=True)
        else:
            profile = pathlib.Path(temporary) / "profile"
            profile.mkdir()
            process = start(path, url, profile)
        try:
            wait(run, process)
        finally:
            if process:
                process.terminate()
                process.wait()
        if run.failure:
            print(f"web-test: {run.failure}", file=sys.stderr)
            if process:
                log = (pathlib.Path(temporary) / "profile" / "stderr").read_text(errors="replace")
                print(f"the browser's last words:\n{log[-2000:]}\n{HINT}", file=sys.stderr)
            sys.exit(2)
        sys.exit(run.code)


if __name__ == "__main__":
    main()
