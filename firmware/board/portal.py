"""The board's own access point, for when its networks stay away: one page, on which it is told about others.

One invariant: nothing that a stranger sends has more than a bounded size, a bounded time, or an effect without the
page's own secret; and nothing is changed here: what was given is tried with the next start, and forgotten when the
broker is not reached with it (changes.py).

It leaves to others: when the access point opens (app.py), what good settings are (settings.py), and the look-ups of
names (names.py) by which a phone comes here: whoever asks for another page is sent to this one.

Sources: RFC 9110 (methods, status codes), RFC 9112 (requests), WHATWG URL, "application/x-www-form-urlencoded";
MicroPython documentation, `network.WLAN`.
"""

import asyncio
import binascii
import gc
import hashlib
import os
import socket

from .names import Names
from .ticks import const, ticks_diff, ticks_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

PORT = const(80)
FILE = "ap.txt"  # the password of a board without a key
REQUEST_BYTES = const(2048)  # of a request's head, and of its body
_REQUEST_MS = const(3000)  # a phone beside the board takes a tenth of that; others wait meanwhile
_BLINK_MS = const(20)
_CHUNK = const(512)
_RETRY_MS = const(180_000)  # between two looks for the networks that are known
_USED_MS = const(600_000)  # somebody who is connected and asks for nothing is no reason to wait for longer
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # 32 that are not taken for each other
_WPA2, _OPEN = const(3), const(0)  # of wifi_auth_mode_t
FIELDS = ("ssid", "password", "ssid2", "password2", "url", "username", "broker_password", "token")

_HEAD = (
    "HTTP/1.1 %s\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n"
    "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: same-origin\r\n"
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'\r\n%s\r\n"
)
_TOP = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>'
_STYLE = (
    "</title><style>body{font:1em sans-serif;max-width:30em;margin:1em auto;padding:0 1em}"
    "input,button{font:inherit;width:100%;box-sizing:border-box;padding:.4em}label{display:block;margin:.6em 0}"
    "</style><h1>"
)
_LABELS = (
    ("ssid", "Wi-Fi, also a hidden one", "text"),
    ("password", "Its password; none for an open network", "password"),
    ("ssid2", "A second network, for when the first one is away", "text"),
    ("password2", "Its password", "password"),
    ("url", "Broker, such as 192.168.1.10 or mqtts://broker.example", "text"),
    ("username", "Its user", "text"),
    ("broker_password", "The user's password", "password"),
)


class RequestError(Exception):
    """A request that is not answered with the page.

    Attributes:
        status: Status code and phrase.
        more: A header that goes with it.
    """

    def __init__(self, status: str, text: str, more: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.more = more


def head_of(data: bytes) -> "tuple[str, str, dict[str, str]] | None":
    """Method, target and headers of a request, the headers' names in small letters; None while it is not whole.

    Raises:
        RequestError: It is no request of HTTP/1.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    try:
        lines = data[:end].decode().split("\r\n")
        method, target, version = lines[0].split(" ")
    except (ValueError, UnicodeError):
        raise RequestError("400 Bad Request", "this is no request") from None
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise RequestError("505 HTTP Version Not Supported", "only HTTP/1")
    headers: "dict[str, str]" = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip() or name in headers:  # twice: which one would be meant?
            raise RequestError("400 Bad Request", "a header that is none, or twice")
        headers[name] = value.strip()
    return method, target, headers


def body_bytes(method: str, headers: "dict[str, str]", host: str) -> int:
    """How long the body will be; 0 for a request without one.

    Args:
        method: Of the request.
        headers: Its headers.
        host: What `Host` must say. Who asks for a page of another name is sent on, as that is how a phone looks whether
            there is an Internet; a form of another name or origin has no business here.

    Raises:
        RequestError: It is refused before its body is read.
    """
    if headers.get("host") != host:
        if method == "GET" and headers.get("host"):
            raise RequestError("302 Found", "this board is http://%s/" % host, "Location: http://%s/\r\n" % host)
        raise RequestError("421 Misdirected Request", "this board is http://%s/" % host)
    if method == "GET":
        return 0
    if method != "POST":
        raise RequestError("405 Method Not Allowed", "only GET and POST", "Allow: GET, POST\r\n")
    if headers.get("origin", "http://" + host) != "http://" + host:
        raise RequestError("403 Forbidden", "a page of another origin")
    if "transfer-encoding" in headers or not headers.get("content-length", "").isdigit():
        raise RequestError("411 Length Required", "a form has a length")
    if headers.get("content-type", "").split(";")[0].strip() != "application/x-www-form-urlencoded":
        raise RequestError("415 Unsupported Media Type", "only the form of this page")
    text = headers["content-length"]
    if len(text) > 4 or int(text) > REQUEST_BYTES:
        raise RequestError("413 Content Too Large", "%d bytes at most" % REQUEST_BYTES)
    return int(text)


def form_of(body: bytes) -> "dict[str, str]":
    """The fields of a form; those that the page does not have are left out.

    Raises:
        RequestError: It is not encoded as forms are.
    """
    fields: "dict[str, str]" = {}
    try:
        for part in body.split(b"&"):
            name, _, value = part.partition(b"=")
            if name.decode() in FIELDS:
                fields[name.decode()] = _decoded(value)
    except (ValueError, UnicodeError):
        raise RequestError("400 Bad Request", "this is no form") from None
    return fields


def _decoded(value: bytes) -> str:
    parts = value.replace(b"+", b" ").split(b"%")
    data = parts[0]
    for part in parts[1:]:
        data += binascii.unhexlify(part[:2]) + part[2:]
    return data.decode()


def change_of(form: "dict[str, str]", present: "dict[str, Any]") -> "dict[str, Any]":
    """What `settings` of a command would say: what was filled in, and nothing of the rest.

    A fixed address stays with the network that it is of.

    Raises:
        ValueError: Nothing was filled in.
    """
    change: "dict[str, Any]" = {}
    for setting, name, secret in (("wifi", "ssid", "password"), ("wifi2", "ssid2", "password2")):
        ssid, password = form.get(name, ""), form.get(secret, "")
        if ssid:
            change[setting] = {"ssid": ssid, "password": password or None}
            if (present.get(setting) or {}).get("ssid") != ssid:
                change[setting]["static"] = None
        elif password:
            raise ValueError("a password without the name of its network")
    url = form.get("url", "").strip()
    if url:
        user = form.get("username", "")
        change["mqtt"] = {
            "url": url if "://" in url else "mqtt://" + url,
            "username": user or None,
            "password": form.get("broker_password", "") or None,
        }
    elif form.get("username") or form.get("broker_password"):
        raise ValueError("a user or a password without a broker")
    if not change:
        raise ValueError("nothing was filled in")
    return change


def escaped(text: str) -> str:
    """The text as HTML."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text


def answer(status: str, title: str, content: "list[str]", more: str = "") -> "list[bytes]":
    """An answer in pieces, for a small memory has no room for it in one; `content` is HTML."""
    title = escaped(title)
    parts = [_TOP.encode(), title.encode(), _STYLE.encode(), title.encode(), b"</h1>"]
    parts += [text.encode() for text in content]
    parts.insert(0, (_HEAD % (status, sum([len(part) for part in parts]), more)).encode())
    return parts


def form_page(title: str, token: str, notes: "list[str]", present: "dict[str, Any]") -> "list[bytes]":
    """The page with the form; of the settings that there are it shows names, and no password."""
    known = {"ssid": (present.get("wifi") or {}).get("ssid"), "ssid2": (present.get("wifi2") or {}).get("ssid")}
    known["url"] = (present.get("mqtt") or {}).get("url")
    parts = ["<p><strong>%s</strong></p>" % escaped(note) for note in notes]
    parts.append('<form method="post" action="/"><input type="hidden" name="token" value="%s">' % token)
    for name, label, kind in _LABELS:
        shown = ' placeholder="%s"' % escaped(str(known[name])) if known.get(name) else ""
        fill = "off" if kind == "text" else "new-password"
        field = '<input name="%s" type="%s" autocomplete="%s" autocapitalize="none"%s>' % (name, kind, fill, shown)
        parts.append("<label>%s%s</label>" % (label, field))
    parts.append("<p>What is left empty stays as it is.</p><button>Try it</button></form>")
    return answer("200 OK", title, parts)


def name_of(sensor_id: str) -> str:
    """The access point's name; IEEE 802.11 has room for 32 bytes."""
    return ("sensor-" + sensor_id)[:32]


def password_from(key: str, sensor_id: str) -> str:
    """The password that a board's key gives: whoever flashed it has the key, and nobody else can tell it.

    Its address in the air would be no secret: everybody hears that.
    """
    digest = hashlib.sha256(b"access point\0" + binascii.unhexlify(key) + sensor_id.encode()).digest()
    return "".join([_LETTERS[byte & 31] for byte in digest[:12]])


def password_of(settings: "dict[str, Any]", sensor_id: str) -> str:
    """The access point's password, "" for none: as given, or from the board's key, or made once and kept."""
    given: "str | None" = settings["ap_password"]
    if given is not None:
        return given
    if settings["update_key"]:
        return password_from(settings["update_key"], sensor_id)
    try:
        with open(FILE) as file:
            kept = str(file.read())
        if len(kept) == 12:
            return kept
    except OSError:
        pass
    made = "".join([_LETTERS[byte & 31] for byte in os.urandom(12)])
    with open(FILE + ".new", "w") as file:
        file.write(made)
    os.rename(FILE + ".new", FILE)
    return made


class Portal:
    """One opening of the access point.

    Args:
        point: MicroPython's `network.WLAN` as an access point.
        wifi: The way into the networks that are known, see wifi.py.
        name: Of the access point.
        password: Of it; "" for none.
        propose: Takes a change of the settings, or raises a ValueError that says what is wrong with it.
        present: The settings that there are.
        log: Takes one line of text for the console alone, for the password is in it.
        notes: What the page says above the form.
        title: The sensor's name.
        feed: Puts the watchdog off; called many times in a second while all is well.
    """

    def __init__(
        self,
        point: "Any",
        wifi: "Any",
        name: str,
        password: str,
        propose: "Callable[[dict[str, Any]], None]",
        present: "dict[str, Any]",
        log: "Callable[[str], None]",
        notes: "list[str]",
        title: str,
        feed: "Callable[[], None]",
    ) -> None:
        self.point = point
        self.wifi = wifi
        self.name = name
        self.password = password
        self.propose = propose
        self.present = present
        self.log = log
        self.notes = notes
        self.title = title
        self.feed = feed
        self.is_given = False
        self.is_back = False
        self.host = ""
        self._token = binascii.hexlify(os.urandom(8)).decode()
        self._used_at = ticks_ms()
        self._was_used = False

    def is_used(self) -> bool:
        """Whether somebody is connected who has come, or has asked for something, in the last ten minutes."""
        there = bool(self.point.isconnected())
        if there and not self._was_used:
            self._used_at = ticks_ms()
        self._was_used = there
        return there and ticks_diff(ticks_ms(), self._used_at) < _USED_MS

    async def run(self, limit_seconds: float = 0) -> bool:
        """Be there until settings were given, or a known network is back.

        Args:
            limit_seconds: The longest time without somebody who uses it; 0 for none. Ten times as long in all.

        Returns:
            Whether settings were given.
        """
        self._leave_radio()
        listener = self._open()
        names = self._answer_names()
        trying = asyncio.create_task(self._keep_trying())
        opened_at = free_at = ticks_ms()
        try:
            while not (self.is_given or self.is_back):
                self.feed()
                if names is not None:
                    names.serve()
                now = ticks_ms()
                if self.is_used():
                    free_at = now
                if limit_seconds and ticks_diff(now, free_at) > limit_seconds * 1000:
                    break
                if limit_seconds and ticks_diff(now, opened_at) > limit_seconds * 10000:
                    break
                try:
                    connection, _ = listener.accept()
                except OSError:  # nobody
                    await asyncio.sleep(_BLINK_MS / 1000)
                    continue
                await self._serve(connection)
        finally:
            trying.cancel()
            listener.close()
            if names is not None:
                names.close()
            self.point.active(False)
        return self.is_given

    def _open(self) -> "Any":
        self.point.active(True)  # its settings can be changed from then on
        if self.password:
            self.point.config(ssid=self.name, security=_WPA2, key=self.password, max_clients=2)
        else:
            self.point.config(ssid=self.name, security=_OPEN, max_clients=2)
        address = self.point.ifconfig()[0]
        self.host = address
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(socket.getaddrinfo(address, PORT)[0][-1])
        listener.listen(2)
        listener.setblocking(False)
        secret = "password " + self.password if self.password else "no password"
        self.log("access point: %s, %s; then open http://%s/" % (self.name, secret, address))
        return listener

    def _answer_names(self) -> "Names | None":
        try:
            return Names(self.host)
        except OSError as error:  # one types the address then
            self.log("access point: no names: %s" % error)
            return None

    async def _keep_trying(self) -> None:
        """Look for the known networks now and then, but not under the feet of somebody who is connected."""
        while True:
            await asyncio.sleep(_RETRY_MS / 1000)
            if self.is_used():
                continue
            for _ in range(2 if self.wifi.second else 1):
                if await self.wifi.ready():
                    self.is_back = True
                    return
            self._leave_radio()

    def _leave_radio(self) -> None:
        """Leave the radio to the access point: a station would go on trying by itself."""
        try:
            self.wifi.wlan.disconnect()
        except OSError:
            pass

    # -- one request after the other

    async def _serve(self, connection: "Any") -> None:
        started = ticks_ms()
        try:
            connection.setblocking(False)
            try:
                said = await self._answer(connection, started)
            except RequestError as error:
                said = answer(error.status, error.status, ["<p>", escaped(str(error))], error.more)
                self._skip(connection)
            for part in said:
                await self._write(connection, part, started)
        except (OSError, MemoryError):  # it went away, or asked for too much: it may ask again
            gc.collect()
        finally:
            connection.close()

    async def _answer(self, connection: "Any", started: int) -> "list[bytes]":
        gc.collect()
        data = b""
        found = None
        while found is None:
            if len(data) >= REQUEST_BYTES:
                raise RequestError("431 Request Header Fields Too Large", "%d bytes at most" % REQUEST_BYTES)
            data += await self._read(connection, REQUEST_BYTES - len(data), started)
            found = head_of(data)
        method, target, headers = found
        length = body_bytes(method, headers, self.host)
        found = headers = None  # type: ignore[assignment]
        data = data[data.find(b"\r\n\r\n") + 4 :]
        while len(data) < length:
            data += await self._read(connection, length - len(data), started)
        self._used_at = ticks_ms()
        if target != "/":
            raise RequestError("404 Not Found", "there is one page: /")
        if method == "GET":
            return form_page(self.title, self._token, self.notes, self.present)
        return self._take(form_of(data[:length]))

    def _take(self, form: "dict[str, str]") -> "list[bytes]":
        if form.get("token") != self._token:
            raise RequestError("403 Forbidden", "an old page: load it anew")
        try:
            self.propose(change_of(form, self.present))
        except ValueError as error:
            return form_page(self.title, self._token, [str(error)], self.present)
        self.is_given = True
        text = (
            "<p>The board restarts now and tries it. When it does not reach the broker that way, it goes back to the "
            "settings before, and this access point comes again."
        )
        return answer("200 OK", self.title, [text])

    async def _read(self, connection: "Any", most: int, started: int) -> bytes:
        while ticks_diff(ticks_ms(), started) < _REQUEST_MS:
            try:
                data: bytes = connection.recv(min(most, _CHUNK))
            except OSError as error:
                if error.args[0] != 11:  # EAGAIN
                    raise
                await asyncio.sleep(_BLINK_MS / 1000)
                continue
            if not data:
                raise OSError(104)  # ECONNRESET
            return data
        raise RequestError("408 Request Timeout", "a request takes %d s at most" % (_REQUEST_MS // 1000))

    def _skip(self, connection: "Any") -> None:
        """Read past what came with a refused request: closed with something unread, a socket takes its answer back."""
        try:
            for _ in range(16):
                if not connection.recv(_CHUNK):
                    break
        except OSError:
            pass

    async def _write(self, connection: "Any", data: bytes, started: int) -> None:
        at = 0
        while at < len(data) and ticks_diff(ticks_ms(), started) < 2 * _REQUEST_MS:
            try:
                at += connection.send(data[at : at + _CHUNK])
            except OSError as error:
                if error.args[0] != 11:
                    raise
                await asyncio.sleep(_BLINK_MS / 1000)
