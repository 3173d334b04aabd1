"""mosquitto/secure on a real Mosquitto: who comes in, who doesn't, and what each may do."""

from __future__ import annotations

import contextlib
import os
import runpy
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties

from tests.support.brokers import IMAGE
from tests.support.certificates import Authority
from tests.support.waiting import eventually, missing

SECURE = Path(__file__).parents[2] / "mosquitto" / "secure"
MOSQUITTO_UID = 1883


def run(script: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, SECURE / script, folder, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def passwords(folder: Path) -> dict[str, str]:
    lines = (folder / "sensors" / "passwords").read_text().splitlines()
    found = {name: value for name, _, value in (line.partition(":") for line in lines)}
    toml = (folder / "gateway" / "gateway.toml").read_text()
    found["gateway"] = toml.partition('password = "')[2].partition('"')[0]
    return found


@dataclass
class SecureBroker:
    folder: Path
    container: Any
    port: int
    certificate_port: int

    @property
    def ca_file(self) -> Path:
        return self.folder / "sensors" / "ca.pem"

    def reload(self) -> None:
        own(self.folder / "broker")
        self.container.get_wrapped_container().kill(signal="SIGHUP")


def own(folder: Path) -> None:
    """Gives the broker's files to the user that it runs as."""
    for path in (folder, *folder.iterdir()):
        os.chown(path, MOSQUITTO_UID, MOSQUITTO_UID)


@pytest.fixture(scope="module")
def broker(docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    if os.getuid() != 0:
        missing("root, to give the broker's files to the broker's user")
    from testcontainers.core.container import DockerContainer

    folder = tmp_path_factory.mktemp("secrets")
    run("make_certs.py", folder, "--client", "esp32-9")
    run("make_passwords.py", folder, "esp32-1", "esp32-2", "--simulated", "2")
    (folder / "broker" / "acl").write_text((SECURE / "acl").read_text())
    (folder / "broker" / "acl").chmod(0o600)
    own(folder / "broker")
    container = (
        DockerContainer(IMAGE)
        .with_volume_mapping(str(SECURE / "mosquitto.conf"), "/mosquitto/config/mosquitto.conf", "ro")
        .with_volume_mapping(str(folder / "broker"), "/mosquitto/secrets", "ro")
    )
    # any free port of loopback: the container's own methods can't say that
    wanted: dict[str, Any] = {f"{port}/tcp": ("127.0.0.1", None) for port in (8883, 8884)}
    container.ports.update(wanted)
    container.start()
    try:
        wrapped = container.get_wrapped_container()
        eventually(lambda: b" running" in wrapped.logs(), 20, "the broker runs")
        wrapped.reload()
        ports = [int(wrapped.ports[f"{port}/tcp"][0]["HostPort"]) for port in (8883, 8884)]
        yield SecureBroker(folder, container, *ports)
    finally:
        container.stop()


class Client:
    """One MQTT 5 connection that remembers why it was refused."""

    def __init__(
        self,
        port: int,
        *,
        ca_file: Path | None,
        user: str | None = None,
        password: str | None = None,
        certificate: Path | None = None,
    ) -> None:
        self.reason: str | None = None
        self.error: Exception | None = None
        self.ended = threading.Event()
        self.received: list[str] = []
        self.refused: list[str] = []
        self._granted: list[Any] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        if user is not None:
            self._client.username_pw_set(user, password)
        if ca_file is not None:
            context = ssl.create_default_context(cafile=ca_file)
            if certificate is not None:
                context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *_: self.ended.set()
        self._client.on_message = lambda _c, _u, message: self.received.append(message.topic)
        self._client.on_subscribe = lambda _c, _u, _m, codes, _p: self._granted.extend(codes)
        self._published: dict[int, Any] = {}
        self._client.on_publish = lambda _c, _u, mid, code, _p: self._published.__setitem__(mid, code)
        try:
            self._client.connect("127.0.0.1", port, keepalive=30)
        except (OSError, ssl.SSLError) as error:
            self.error = error
            return
        self._client.loop_start()
        eventually(lambda: self.reason is not None or self.ended.is_set(), 10, "an answer of the broker")

    def _on_connect(self, _c: Any, _u: Any, _f: Any, reason: Any, _p: Properties | None) -> None:
        self.reason = str(reason)

    def publish(self, topic: str, payload: str = "1") -> str:
        """The broker's reason code."""
        info = self._client.publish(topic, payload, qos=1)
        eventually(lambda: info.mid in self._published, 10, "a PUBACK")
        return str(self._published[info.mid])

    def subscribe(self, topic_filter: str) -> None:
        before = len(self._granted)
        self._client.subscribe(topic_filter, 1)
        eventually(lambda: len(self._granted) > before, 10, "a SUBACK")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def connected(broker: SecureBroker, user: str, **options: Any) -> Iterator[Client]:
    client = Client(broker.port, ca_file=broker.ca_file, user=user, password=passwords(broker.folder)[user], **options)
    assert client.reason == "Success", (client.reason, client.error)
    try:
        yield client
    finally:
        client.close()


def test_a_wrong_password_and_an_unknown_user_are_refused(broker: SecureBroker) -> None:
    for user, password in (("esp32-1", "wrong"), ("nobody", "x"), ("", ""), ("esp32-1", "")):
        client = Client(broker.port, ca_file=broker.ca_file, user=user, password=password)
        assert client.reason == "Not authorized"
        client.close()


def test_nobody_comes_in_without_a_name(broker: SecureBroker) -> None:
    client = Client(broker.port, ca_file=broker.ca_file)
    assert client.reason == "Not authorized"
    client.close()


def test_nobody_comes_in_without_tls(broker: SecureBroker) -> None:
    client = Client(broker.port, ca_file=None, user="esp32-1", password=passwords(broker.folder)["esp32-1"])
    assert client.reason is None
    assert client.error is not None or client.ended.is_set()
    client.close()


def test_the_plain_port_is_closed(broker: SecureBroker) -> None:
    wrapped = broker.container.get_wrapped_container()
    listening = wrapped.exec_run(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).output.decode()
    ports = {int(line.split()[1].rpartition(":")[2], 16) for line in listening.splitlines() if " 0A " in line}
    assert {8883, 8884} <= ports
    assert 1883 not in ports


def test_a_client_that_trusts_another_authority_sends_nothing(broker: SecureBroker, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=Authority(tmp_path).ca_file)
    refused = pytest.raises(ssl.SSLCertVerificationError)
    with socket.create_connection(("127.0.0.1", broker.port), 10) as plain, refused:
        context.wrap_socket(plain, server_hostname="localhost")


def test_old_tls_is_refused_and_the_newest_is_spoken(broker: SecureBroker) -> None:
    context = ssl.create_default_context(cafile=broker.ca_file)
    with (
        socket.create_connection(("127.0.0.1", broker.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert secure.version() == "TLSv1.3"
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{broker.port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert b"Cipher is (NONE)" in done.stdout


def test_a_sensor_writes_its_own_topics_and_no_others(broker: SecureBroker) -> None:
    with connected(broker, "esp32-1") as sensor:
        for topic in ("state", "status", "meta"):
            assert sensor.publish(f"sensors/esp32-1/{topic}") in ("Success", "No matching subscribers")
        assert sensor.publish("homeassistant/device/esp32-1/config") in ("Success", "No matching subscribers")
        for topic in (
            "sensors/esp32-2/state",
            "sensors/esp32-1/cmd",
            "sensors/esp32-1/x/state",
            "sensors/state",
            "gateway/status",
            "homeassistant/device/esp32-2/config",
            "alerts/fire",
            "$SYS/broker/uptime",
        ):
            assert sensor.publish(topic) == "Not authorized", topic


def test_a_sensor_reads_its_commands_and_nothing_else(broker: SecureBroker) -> None:
    with connected(broker, "esp32-1") as sensor, connected(broker, "gateway") as gateway:
        # Mosquitto grants any subscription and filters what is delivered
        for topic_filter in ("#", "sensors/+/cmd", "sensors/esp32-2/cmd", "$SYS/#", "sensors/+/state"):
            sensor.subscribe(topic_filter)
        with connected(broker, "esp32-2") as other:
            other.publish("sensors/esp32-2/state")
        gateway.publish("sensors/esp32-2/cmd")
        gateway.publish("sensors/esp32-1/cmd", "last")
        eventually(lambda: "sensors/esp32-1/cmd" in sensor.received, 10, "its command")
        assert set(sensor.received) == {"sensors/esp32-1/cmd"}


def test_the_gateway_reads_all_and_writes_commands_and_its_status(broker: SecureBroker) -> None:
    with connected(broker, "gateway") as gateway, connected(broker, "esp32-2") as sensor:
        gateway.subscribe("#")
        gateway.subscribe("$SYS/broker/version")
        sensor.publish("sensors/esp32-2/state")
        eventually(lambda: {"sensors/esp32-2/state", "$SYS/broker/version"} <= set(gateway.received), 10, "both")
        assert gateway.publish("gateway/status") in ("Success", "No matching subscribers")
        assert gateway.publish("sensors/esp32-2/cmd") in ("Success", "No matching subscribers")
        for topic in ("sensors/esp32-2/state", "sensors/esp32-2/status", "alerts/x", "$SYS/x"):
            assert gateway.publish(topic) == "Not authorized", topic


def test_a_certificate_is_a_name_and_no_password_is_asked(broker: SecureBroker) -> None:
    pem = broker.folder / "clients" / "esp32-9.pem"
    client = Client(broker.certificate_port, ca_file=broker.ca_file, certificate=pem)
    assert client.reason == "Success"
    assert client.publish("sensors/esp32-9/state") != "Not authorized"
    assert client.publish("sensors/esp32-1/state") == "Not authorized"
    client.close()


def test_a_certificate_of_another_authority_is_refused(broker: SecureBroker, tmp_path: Path) -> None:
    foreign = Authority(tmp_path).issue("esp32-9", client=True)
    client = Client(broker.certificate_port, ca_file=broker.ca_file, certificate=foreign.cert)
    assert client.reason is None
    client.close()
    without = Client(broker.certificate_port, ca_file=broker.ca_file, user="esp32-1", password="x")
    assert without.reason is None
    without.close()


def test_a_new_password_and_a_new_sensor_count_after_a_reload(broker: SecureBroker) -> None:
    old = passwords(broker.folder)
    run("make_passwords.py", broker.folder, "--new", "sim-2")
    run("make_passwords.py", broker.folder, "esp32-3")
    broker.reload()

    def refused() -> bool:
        client = Client(broker.port, ca_file=broker.ca_file, user="sim-2", password=old["sim-2"])
        client.close()
        return client.reason == "Not authorized"

    eventually(refused, 10, "the old password is refused")
    with connected(broker, "sim-2"), connected(broker, "esp32-3"), connected(broker, "esp32-1"):
        assert passwords(broker.folder)["esp32-1"] == old["esp32-1"]


def test_a_password_file_of_mosquittos_own_tool_holds_the_same_kind_of_hash(tmp_path: Path) -> None:
    if shutil.which("mosquitto_passwd") is None:
        missing("the program mosquitto_passwd")
    path = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", path, "a", "s3cret"], check=True, timeout=30)
    is_right = runpy.run_path(str(SECURE / "make_passwords.py"))["is_right"]
    text = path.read_text().strip().partition(":")[2]
    assert is_right("s3cret", text)
    assert not is_right("other", text)


@pytest.mark.parametrize("name", ["a/b", "+", "#", "A", "", "a" * 65, "gateway", "é"])
def test_names_that_would_reach_other_topics_are_refused(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, SECURE / "make_passwords.py", tmp_path, "--", name],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "must be 1 to 64" in done.stderr or "is the gateway's" in done.stderr
    assert not (tmp_path / "broker").exists()


def test_running_the_scripts_again_changes_nothing_that_is_good(tmp_path: Path) -> None:
    def made() -> dict[str, bytes]:
        run("make_certs.py", tmp_path, "--client", "a")
        run("make_passwords.py", tmp_path, "a", "b", "--simulated", "2")
        return {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    first = made()
    assert made() == first
    for path in tmp_path.rglob("*"):
        if path.suffix == ".key" or path.name in ("passwords", "gateway.toml"):
            assert path.stat().st_mode & 0o077 == 0, path


def test_a_certificate_for_other_hosts_or_near_its_end_is_made_anew(tmp_path: Path) -> None:
    run("make_certs.py", tmp_path, "--days", "29")
    server = tmp_path / "broker" / "server.pem"
    first = server.read_bytes()
    assert "made" in run("make_certs.py", tmp_path)
    second = server.read_bytes()
    assert second != first
    assert run("make_certs.py", tmp_path) == ""
    assert "broker.example" in run("make_certs.py", tmp_path, "--host", "broker.example")
    assert server.read_bytes() != second
