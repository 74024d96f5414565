"""Speaks as much of Hugging Face's protocol as its client needs to download files.

A file of a model is at `/user/model/resolve/revision/name`. A HEAD request tells the commit, the
ETag and the size. Weights are kept elsewhere, by their sums: the answer is a redirection to another
host, which does not know the commit. What went wrong stands in the header `X-Error-Code`. Taken
from the client's source (`file_download.py`, `utils/_http.py`) and the answers of the hub that it
expects.
"""

import hashlib
import json
import re
from urllib.parse import unquote, urlsplit

from file_server import FileServer, send

LARGE = (".h5", ".safetensors", ".bin", ".gguf")


def commit_of(files: dict[str, bytes]) -> str:
    """A commit's name, which changes with its files."""
    sums = [(name, hashlib.sha1(data).hexdigest()) for name, data in sorted(files.items())]
    return hashlib.sha1(repr(sums).encode()).hexdigest()


class HuggingFaceServer(FileServer):
    """A hub with a few models.

    Attributes:
        models: for "user/model" the revisions of the model, and for each its files. The main branch
            is "main".
        gated: models that a user has to be admitted to.
        tokens: access tokens of users; True if the user is admitted.
    """

    def __init__(self):
        super().__init__()
        self.models = {}
        self.stored = {}  # weights by their sums
        self.gated = set()
        self.tokens = {}

    def answer(self, handler):
        """Answers one request."""
        path = urlsplit(handler.path).path
        if path.startswith("/storage/"):
            total, name = re.fullmatch(r"/storage/(.+?)/(.+)", unquote(path)).groups()
            self.send_file(handler, name, self.stored[total], {})
            return
        listed = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path)
        if listed is not None:
            self.list(handler, *listed.groups())
            return
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if match is None:  # the client asks for other things as well, and can do without
            refuse(handler, 404)
            return
        model, revision, name = map(unquote, match.groups())
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.tokens:
            refuse(handler, 401, message="Invalid credentials in Authorization header")
        elif model not in self.models:  # it might be private
            # For https the client takes any such 401 for a missing model, also without the code.
            refuse(handler, 404 if token else 401, "RepoNotFound", "Invalid username or password.")
        elif model in self.gated and not self.tokens.get(token):
            refuse(handler, 403 if token else 401, "GatedRepo", f"Access to {model} is restricted")
        else:
            self.resolve(handler, model, revision, name)

    def list(self, handler, model, commit):
        """Answers with the names of a commit's files."""
        files = {commit_of(files): files for files in self.models[model].values()}[commit]
        entries = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ]
        send(handler, 200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def resolve(self, handler, model, revision, name):
        """Answers with a file, or where it is kept, or why not."""
        revisions = self.models[model]
        commits = {commit_of(files): files for files in revisions.values()}
        files = revisions.get(revision, commits.get(revision))
        if files is None:
            refuse(handler, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        commit = {"X-Repo-Commit": commit_of(files)}
        if name not in files:
            refuse(handler, 404, "EntryNotFound", "Entry not found", commit)
            return
        data = files[name]
        total = hashlib.sha256(data).hexdigest()
        etag = f'"{total}"'
        if name.endswith(LARGE):
            self.stored[total] = data
            host = self.address.replace("127.0.0.1", "localhost")
            place = f"{host}/storage/{total}/{name}"
            headers = {"Location": place, "X-Linked-Size": len(data), "X-Linked-Etag": etag}
            send(handler, 302, b"", {**commit, **headers})
        else:
            self.send_file(handler, name, data, {**commit, "ETag": etag})


def refuse(handler, status, code="", message="", headers=None):
    """An answer with the reason in its headers."""
    reason = {"X-Error-Code": code} if code else {}
    send(handler, status, b"", {**(headers or {}), **reason, "X-Error-Message": message})
