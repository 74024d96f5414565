"""Speaks as much of Kaggle's protocol as its client needs to download models.

The newest version of a model is asked for by a POST to `GetModelInstance`, a file by one to
`DownloadModelInstanceVersion`, which is answered by a redirection to Google's storage, and there
the file's MD5 sum is in the header `X-Goog-Hash`. Refusals are JSON with `code` and `message`.
Taken from the client's source (`kagglehub/http_resolver.py`, `clients.py` and kagglesdk); which
status the real service has for what is known from reports of its users: 404 for a missing file,
403 for a model without consent and often also for one that does not exist.
"""

import json
import re
from urllib.parse import unquote

from file_server import FileServer, md5, send

SERVICE = "/v1/models.ModelApiService"


class KaggleServer(FileServer):
    """A hub with a few models.

    Attributes:
        models: for "user/model/framework/variant" the files of each version, by its number.
        refused: statuses for models that are not given out, such as 403.
        damaged: names of files whose contents do not fit their sums.
    """

    def __init__(self):
        super().__init__()
        self.models = {}
        self.refused = {}
        self.damaged = set()

    def answer(self, handler):
        """Answers one request."""
        if handler.command == "GET":
            pattern = r"/storage/(.+?)/(\d+)/files/(.+)"
            variant, version, name = re.fullmatch(pattern, unquote(handler.path)).groups()
            data = self.models[variant][int(version)][name]
            total = md5(b"" if name in self.damaged else data)
            self.send_file(handler, name, data, {"X-Goog-Hash": f"crc32c=AAAAAA==,md5={total}"})
            return
        asked = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        framework = asked["framework"].removeprefix("MODEL_FRAMEWORK_").lower()
        names = asked["ownerSlug"], asked["modelSlug"], framework, asked["instanceSlug"]
        variant = "/".join(names)
        versions = self.models.get(variant, {})
        # In place of the method's name, what it is about.
        wanted = f"version of {variant}"
        if handler.path == f"{SERVICE}/DownloadModelInstanceVersion":
            wanted = f"{asked['path']} of {variant}/{asked['versionNumber']}"
        self.requests[-1] = f"POST {wanted}"
        if variant in self.refused:
            refuse(handler, self.refused[variant], "Permission 'models.get' was denied")
        elif not versions:
            refuse(handler, 404, "Model not found")
        elif handler.path == f"{SERVICE}/GetModelInstance":
            send_json(handler, 200, {"versionNumber": max(versions)})
        elif asked["path"] not in versions.get(asked["versionNumber"], {}):
            refuse(handler, 404, "File not found")
        else:
            place = f"/storage/{variant}/{asked['versionNumber']}/files/{asked['path']}"
            send(handler, 302, b"", {"Location": self.address + place})


def refuse(handler, status, message):
    """A refusal as Kaggle writes it."""
    send_json(handler, status, {"code": status, "message": message})


def send_json(handler, status, content):
    """An answer in JSON."""
    data = json.dumps(content).encode()
    send(handler, status, data, {"Content-Type": "application/json"})
