# An S3 service with one bucket in memory: s3.py BUCKET ACCESS_KEY SECRET_KEY [CERTIFICATE KEY]. Says its port, and serves until it is ended.
# From one SIGUSR1 to the next, large bodies are not answered.
# Requests have to be signed, which botocore's signer is asked about: Amazon's own, and not the one that is tested.
import datetime
import hashlib
import http.server
import signal
import ssl
import sys
import threading
import urllib.parse
import uuid
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

bucket, access_key, secret_key, *identity = sys.argv[1:]
objects, uploads, lock = {}, {}, threading.Lock()
moving = threading.Event()
moving.set()
signal.signal(signal.SIGUSR1, lambda *_: moving.clear() if moving.is_set() else moving.set())


class Refused(Exception):
    def __init__(self, status, code):
        self.status, self.code = status, code


class Signer(S3SigV4Auth):
    """Signs for the moment and the region that the request says."""

    def __init__(self, region, at, payload):
        super().__init__(Credentials(access_key, secret_key), "s3", region)
        self.at, self.sha256 = at, payload

    def payload(self, request):
        return self.sha256


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_):
        pass

    def check(self, body):
        header = self.headers.get("authorization", "")
        parts = dict(p.strip().split("=", 1) for p in header.partition(" ")[2].split(",") if "=" in p)
        if not header.startswith("AWS4-HMAC-SHA256 ") or len(parts) != 3:
            raise Refused(403, "AccessDenied")
        key, date, region, service, _ = parts["Credential"].split("/")
        if key != access_key:
            raise Refused(403, "InvalidAccessKeyId")
        at, payload = self.headers["x-amz-date"], self.headers["x-amz-content-sha256"]
        now = datetime.datetime.utcnow()
        if abs((now - datetime.datetime.strptime(at, "%Y%m%dT%H%M%SZ")).total_seconds()) > 900:
            raise Refused(403, "RequestTimeTooSkewed")
        if hashlib.sha256(body).hexdigest() != payload:
            raise Refused(400, "XAmzContentSHA256Mismatch")
        signed = parts["SignedHeaders"].split(";")
        if "host" not in signed or service != "s3":
            raise Refused(403, "SignatureDoesNotMatch")
        scheme = "https" if identity else "http"
        url = f"{scheme}://{self.headers['host']}{self.path}"
        headers = {name: self.headers[name] for name in signed}
        request = AWSRequest(method=self.command, url=url, data=body, headers=headers)
        request.context["timestamp"] = at
        signer = Signer(region, at, payload)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        if signer.signature(text, request) != parts["Signature"] or at[:8] != date:
            raise Refused(403, "SignatureDoesNotMatch")

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def serve(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if len(body) > 1 << 20:
            moving.wait()
        try:
            self.check(body)
            url = urllib.parse.urlsplit(self.path)
            where, _, key = urllib.parse.unquote(url.path)[1:].partition("/")
            if where != bucket:
                raise Refused(404, "NoSuchBucket")
            query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
            with lock:
                self.act(key, query, body)
        except Refused as refused:
            text = f"<Error><Code>{refused.code}</Code><Message>no, by the test</Message></Error>"
            self.answer(refused.status, text.encode())

    do_GET = do_PUT = do_POST = do_DELETE = serve

    def act(self, key, query, body):
        tag = '"' + hashlib.md5(body).hexdigest() + '"'
        if not key:
            self.list(query)
        elif "uploads" in query and self.command == "POST":
            upload = uuid.uuid4().hex
            uploads[upload] = (key, {})
            self.answer(200, f"<R><UploadId>{upload}</UploadId></R>".encode())
        elif "uploadId" in query:
            self.part(key, query, body, tag)
        elif self.command == "PUT":
            objects[key] = body
            self.answer(200, ETag=tag)
        elif self.command == "DELETE":
            objects.pop(key, None)
            self.answer(204)
        elif key not in objects:
            raise Refused(404, "NoSuchKey")
        else:
            content = objects[key]
            tag = '"' + hashlib.md5(content).hexdigest() + '"'
            wanted = self.headers.get("range")
            if wanted:
                self.answer(206, content[int(wanted[6:].split("-")[0]):], ETag=tag)
            else:
                self.answer(200, content, ETag=tag)

    def part(self, key, query, body, tag):
        upload = uploads.get(query["uploadId"])
        if upload is None or upload[0] != key:
            raise Refused(404, "NoSuchUpload")
        if self.command == "PUT":
            upload[1][int(query["partNumber"])] = body
            self.answer(200, ETag=tag)
            return
        del uploads[query["uploadId"]]
        if self.command == "DELETE":
            self.answer(204)
            return
        parts = [upload[1][number] for number in sorted(upload[1])]
        if any(len(part) < 5 << 20 for part in parts[:-1]):
            raise Refused(400, "EntityTooSmall")
        objects[key] = b"".join(parts)
        self.answer(200, b"<R><ETag>whole</ETag></R>")

    def list(self, query):
        prefix = query.get("prefix", "")
        if "uploads" in query:
            found = [(key, upload) for upload, (key, _) in uploads.items() if key.startswith(prefix)]
            text = "".join(f"<Upload><Key>{escape(k)}</Key><UploadId>{u}</UploadId></Upload>" for k, u in found)
            self.answer(200, f"<R>{text}</R>".encode())
            return
        # Two at a time, so that lists have several pages.
        keys = sorted(key for key in objects if key.startswith(prefix))
        keys = [key for key in keys if key > query.get("continuation-token", "")]
        more = f"<NextContinuationToken>{escape(keys[1])}</NextContinuationToken>" if len(keys) > 2 else ""
        text = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key])}</Size></Contents>" for key in keys[:2]
        )
        self.answer(200, f"<R>{text}{more}</R>".encode())


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
if identity:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*identity)
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
