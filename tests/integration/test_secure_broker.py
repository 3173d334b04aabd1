"""mosquitto/secure on a real Mosquitto: who comes in, who doesn't, and what each may do."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import runpy
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.brokers import IMAGE, docker_problem, mosquitto_program
from tests.support.certificates import Authority
from tests.support.gateways import GatewayProcess
from tests.support.publishers import leave
from tests.support.waiting import eventually, free_port, is_listening, missing

ROOT = Path(__file__).parents[2]
SECURE = ROOT / "mosquitto" / "secure"
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
    port: int
    certificate_port: int
    node_port: int
    listening: Callable[[], set[int]]
    hang_up: Callable[[], None]

    @property
    def ca_file(self) -> Path:
        return self.folder / "sensors" / "ca.pem"


def own(folder: Path) -> None:
    """Gives the broker's files to the user that it runs as."""
    for path in (folder, *folder.iterdir()):
        os.chown(path, MOSQUITTO_UID, MOSQUITTO_UID)


def ports_in(table: str, inodes: set[str] | None = None) -> set[int]:
    """The ports that are listened on in the text of /proc/net/tcp; with inodes, by these sockets."""
    rows = [line.split() for line in table.splitlines() if " 0A " in line]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if inodes is None or row[9] in inodes}


@contextlib.contextmanager
def in_a_container(folder: Path) -> Iterator[SecureBroker]:
    """As docker-compose.yml runs it."""
    if problem := docker_problem():
        missing(problem)
    if os.getuid() != 0:
        missing("root, to give the broker's files to the broker's user")
    from testcontainers.core.container import DockerContainer

    own(folder / "broker")
    container = (
        DockerContainer(IMAGE)
        .with_volume_mapping(str(SECURE / "mosquitto.conf"), "/mosquitto/config/mosquitto.conf", "ro")
        .with_volume_mapping(str(folder / "broker"), "/mosquitto/secrets", "ro")
    )
    # any free port of loopback: the container's own methods can't say that
    wanted: dict[str, Any] = {f"{port}/tcp": ("127.0.0.1", None) for port in (8883, 8884, 8885)}
    container.ports.update(wanted)
    container.start()
    try:
        wrapped = container.get_wrapped_container()
        eventually(lambda: b" running" in wrapped.logs(), 20, "the broker runs")
        wrapped.reload()
        ports = [int(wrapped.ports[f"{port}/tcp"][0]["HostPort"]) for port in (8883, 8884, 8885)]

        def listening() -> set[int]:
            inside = ports_in(wrapped.exec_run(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).output.decode())
            return {{8883: ports[0], 8884: ports[1], 8885: ports[2]}.get(port, port) for port in inside}

        def hang_up() -> None:
            own(folder / "broker")
            wrapped.kill(signal="SIGHUP")

        yield SecureBroker(folder, ports[0], ports[1], ports[2], listening, hang_up)
    finally:
        container.stop()


@contextlib.contextmanager
def on_debian(folder: Path) -> Iterator[SecureBroker]:
    """As docs/security.md sets it up on Debian, but for the folders and ports."""
    program = mosquitto_program()
    if program is None:
        missing("the program mosquitto")
    documented = re.search(r"^sed '(.+)' mosquitto\.conf", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE)
    assert documented is not None
    text = subprocess.run(
        ["sed", documented[1], SECURE / "mosquitto.conf"], capture_output=True, text=True, check=True, timeout=10
    ).stdout
    ports = [free_port(), free_port(), free_port()]
    for old, new in (
        ("/etc/mosquitto/secrets/", f"{folder}/broker/"),
        ("/var/lib/mosquitto/", f"{folder}/data/"),
        ("listener 8883", f"listener {ports[0]} 127.0.0.1"),
        ("listener 8884", f"listener {ports[1]} 127.0.0.1"),
        ("listener 8885", f"listener {ports[2]} 127.0.0.1"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "data").mkdir()
    configuration = folder / "mosquitto.conf"
    # the folders of a test are only for the user that runs it
    configuration.write_text(text + (f"user {pwd.getpwuid(os.getuid()).pw_name}\n"))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, "-c", configuration], stdout=log, stderr=log)
    try:
        eventually(lambda: all(map(is_listening, ports)), 20, "the broker listens")

        def listening() -> set[int]:
            links = [str(path.readlink()) for path in Path(f"/proc/{process.pid}/fd").iterdir()]
            inodes = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
            return ports_in(Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text(), inodes)

        ways = listening, lambda: process.send_signal(signal.SIGHUP)
        yield SecureBroker(folder, ports[0], ports[1], ports[2], *ways)
    finally:
        process.terminate()
        process.wait(30)


FORMS = [
    pytest.param(in_a_container, id="container", marks=pytest.mark.docker),
    pytest.param(on_debian, id="debian"),
]


@pytest.fixture(scope="module", params=FORMS)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    folder = tmp_path_factory.mktemp("secrets")
    run("make_certs.py", folder, "--client", "esp32-9")
    run("make_passwords.py", folder, "esp32-1", "esp32-2", "homeassistant", "--simulated", "2")
    (folder / "broker" / "acl").write_text((SECURE / "acl").read_text())
    (folder / "broker" / "acl").chmod(0o600)
    with request.param(folder) as broker:
        yield broker


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
        client_id: str = "",
        keeps: bool = False,
    ) -> None:
        """`keeps` is whether the broker keeps its session."""
        self.had_session: bool | None = None
        self.reason: str | None = None
        self.error: Exception | None = None
        self.ended = threading.Event()
        self.received: list[str] = []
        self.payloads: list[str] = []
        self.refused: list[str] = []
        self._granted: list[Any] = []
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        if user is not None:
            self._client.username_pw_set(user, password)
        if ca_file is not None:
            context = ssl.create_default_context(cafile=ca_file)
            if certificate is not None:
                context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *_: self.ended.set()
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda _c, _u, _m, codes, _p: self._granted.extend(codes)
        self._published: dict[int, Any] = {}
        self._client.on_publish = lambda _c, _u, mid, code, _p: self._published.__setitem__(mid, code)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 600 if keeps else 0
        try:
            self._client.connect("127.0.0.1", port, keepalive=30, clean_start=not keeps, properties=properties)
        except (OSError, ssl.SSLError) as error:
            self.error = error
            return
        self._client.loop_start()
        eventually(lambda: self.reason is not None or self.ended.is_set(), 10, "an answer of the broker")

    def _on_connect(self, _c: Any, _u: Any, flags: Any, reason: Any, _p: Properties | None) -> None:
        self.had_session = flags.session_present
        self.reason = str(reason)

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        self.received.append(message.topic)
        self.payloads.append(message.payload.decode())

    def publish(self, topic: str, payload: str = "1", *, retain: bool = False) -> str:
        """The broker's reason code."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        eventually(lambda: info.mid in self._published, 10, "a PUBACK")
        return str(self._published[info.mid])

    def subscribe(self, topic_filter: str) -> None:
        before = len(self._granted)
        self._client.subscribe(topic_filter, 1)
        eventually(lambda: len(self._granted) > before, 10, "a SUBACK")

    def close(self) -> None:
        leave(self._client)


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
    assert broker.listening() == {broker.port, broker.certificate_port, broker.node_port}


def test_the_nodes_of_a_cluster_are_one_user_with_several_connections(broker: SecureBroker) -> None:
    certificate = broker.folder / "gateway" / "node.pem"
    nodes = [
        Client(broker.node_port, ca_file=broker.ca_file, certificate=certificate, client_id=name)
        for name in ("gateway", "gateway-a", "gateway-b")
    ]
    assert [node.reason for node in nodes] == ["Success"] * 3
    nodes[0].subscribe("sensors/#")
    for node in nodes[1:]:
        assert node.publish("sensors/esp32-1/cmd") == "Success"
        assert node.publish("sensors/esp32-1/state") == "Not authorized", "it is the gateway"
    eventually(lambda: nodes[0].received == ["sensors/esp32-1/cmd"] * 2, 10, "all of them are connected")
    assert not any(node.ended.is_set() for node in nodes)
    for node in nodes:
        node.close()


def test_nobody_else_comes_in_where_nodes_choose_their_client_ids(broker: SecureBroker) -> None:
    secrets = passwords(broker.folder)
    refused = [
        Client(
            broker.node_port,
            ca_file=broker.ca_file,
            certificate=broker.folder / "clients" / "esp32-9.pem",
            client_id="gateway",
        ),
        *(
            Client(broker.node_port, ca_file=broker.ca_file, user=user, password=secrets[user], client_id="gateway")
            for user in ("esp32-1", "gateway")
        ),
    ]
    assert [client.reason for client in refused] == [None] * 3
    for client in refused:
        client.close()
    # and a node's certificate is one for nodes only
    client = Client(broker.certificate_port, ca_file=broker.ca_file, certificate=broker.folder / "gateway" / "node.pem")
    assert client.reason is None
    client.close()


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


EVERYTHING = ("#", "+/#", "sensors/+/+", "sensors/esp32-2/cmd", "homeassistant/#", "gateway/#", "$SYS/#", "$share/a/#")


def speak(gateway: Client, other: Client, *, retain: bool) -> None:
    """Everything that those who are not esp32-1 may say."""
    for topic in ("sensors/esp32-2/state", "sensors/esp32-2/status", "sensors/esp32-2/meta"):
        assert other.publish(topic, retain=retain) != "Not authorized"
    assert other.publish("homeassistant/device/esp32-2/config", retain=retain) != "Not authorized"
    for topic in ("gateway/status", "sensors/esp32-2/cmd", "sensors/nobody/cmd"):
        assert gateway.publish(topic, retain=retain) != "Not authorized"


def test_a_sensor_reads_its_commands_and_nothing_else(broker: SecureBroker) -> None:
    with connected(broker, "gateway") as gateway, connected(broker, "esp32-2") as other:
        speak(gateway, other, retain=True)
        with connected(broker, "esp32-1") as sensor:
            # Mosquitto grants any subscription and filters what is delivered
            for topic_filter in EVERYTHING:
                sensor.subscribe(topic_filter)
            speak(gateway, other, retain=False)
            gateway.publish("sensors/esp32-1/cmd", "last")
            eventually(lambda: "sensors/esp32-1/cmd" in sensor.received, 10, "its command")
            assert set(sensor.received) == {"sensors/esp32-1/cmd"}
        for topic in ("gateway/status", "sensors/esp32-2/cmd", "sensors/nobody/cmd"):
            gateway.publish(topic, "", retain=True)


def test_no_password_takes_the_place_of_another_user_by_its_client_id(broker: SecureBroker) -> None:
    pem = broker.folder / "clients" / "esp32-9.pem"
    said = []
    with connected(broker, "gateway", client_id="gateway") as gateway, connected(broker, "esp32-2") as other:
        gateway.subscribe("sensors/#")
        for client_id in ("gateway", "esp32-2"):
            with connected(broker, "esp32-1", client_id=client_id) as sensor:
                said.append(f"with a password as {client_id}")
                sensor.publish("sensors/esp32-1/state", said[-1])
            certified = Client(broker.certificate_port, ca_file=broker.ca_file, certificate=pem, client_id=client_id)
            said.append(f"with a certificate as {client_id}")
            certified.publish("sensors/esp32-9/state", said[-1])
            certified.close()
        said.append("the other one")
        other.publish("sensors/esp32-2/state", said[-1])
        eventually(lambda: set(said) <= set(gateway.payloads), 10, "every reading")
        assert not gateway.ended.is_set()
        assert not other.ended.is_set()


def test_a_sensor_can_not_take_over_the_gateways_session(broker: SecureBroker) -> None:
    with connected(broker, "gateway", client_id="gateway", keeps=True) as gateway:
        gateway.subscribe("sensors/#")
    with connected(broker, "esp32-2") as other:
        other.publish("sensors/esp32-2/state", "waits")
        with connected(broker, "esp32-1", client_id="gateway", keeps=True) as sensor:
            assert sensor.had_session is False
            sensor.subscribe("#")
            other.publish("sensors/esp32-2/state", "waits, too")
            sensor.publish("sensors/esp32-1/state", "its own")
            eventually(lambda: sensor.received, 10, "its own reading")
            assert sensor.payloads == ["its own"]
    with connected(broker, "gateway", client_id="gateway", keeps=True) as gateway:
        assert gateway.had_session is True
        eventually(lambda: {"waits", "waits, too", "its own"} <= set(gateway.payloads), 10, "what waited for it")
    for user in ("gateway", "esp32-1"):
        with connected(broker, user) as client:  # leaves no session behind
            assert client.had_session is False


def test_a_user_has_one_place_and_comes_back_to_it(broker: SecureBroker) -> None:
    with connected(broker, "esp32-1", client_id="a") as first, connected(broker, "esp32-1", client_id="b") as second:
        eventually(first.ended.is_set, 10, "the former connection ends")
        assert second.publish("sensors/esp32-1/state") != "Not authorized"


def test_the_gateway_reads_all_and_writes_commands_and_its_status(broker: SecureBroker) -> None:
    with connected(broker, "gateway") as gateway, connected(broker, "esp32-2") as sensor:
        gateway.subscribe("#")
        gateway.subscribe("$SYS/broker/version")
        sensor.publish("sensors/esp32-2/state")
        eventually(lambda: {"sensors/esp32-2/state", "$SYS/broker/version"} <= set(gateway.received), 10, "both")
        assert gateway.publish("gateway/status") in ("Success", "No matching subscribers")
        assert gateway.publish("sensors/esp32-2/cmd") in ("Success", "No matching subscribers")
        foreign = (
            "homeassistant/device/esp32-2/config",
            "homeassistant/lock/gateway/door/config",
            "homeassistant/status",
        )
        for topic in ("sensors/esp32-2/state", "sensors/esp32-2/status", "alerts/x", "$SYS/x", *foreign):
            assert gateway.publish(topic) == "Not authorized", topic


@pytest.mark.slow
def test_home_assistant_finds_the_gateway_its_alerts_and_the_sensors(broker: SecureBroker, tmp_path: Path) -> None:
    """A running gateway and simulator, as they come, with the passwords that the scripts made."""
    gateway = GatewayProcess(
        tmp_path / "gateway",
        f"mqtts://localhost:{broker.port}",
        mqtt_ca_file=str(broker.ca_file),
        mqtt_username="gateway",
        mqtt_password=passwords(broker.folder)["gateway"],
        mqtt_discovery="homeassistant",
        alert_discovery="homeassistant",
        alerts=[{"name": "hot", "topics": "sensors/+/state", "where": "payload.t > 90"}],
        access_allow_anonymous=True,
    )
    simulator: list[str | Path] = [
        *(sys.executable, "-m", "sensors_sim", "--broker", f"mqtts://localhost:{broker.port}", "--ca", broker.ca_file),
        *("--username", "{id}", "--password-file", broker.folder / "sensors" / "passwords"),
        *("--dialect", "homeassistant", "--devices", "2"),
    ]
    with (
        connected(broker, "homeassistant") as home,
        (tmp_path / "simulator.log").open("wb") as log,
        subprocess.Popen(simulator, cwd=ROOT, stdout=log, stderr=log) as process,
    ):
        home.subscribe("homeassistant/#")
        home.subscribe("gateway/#")
        home.subscribe("sensors/+/state")
        with gateway:
            wanted = {
                *(f"homeassistant/sensor/gateway/{name}/config" for name in ("messages", "subscribers")),
                "homeassistant/binary_sensor/gateway/connected/config",
                "homeassistant/binary_sensor/gateway_alert_hot/config",
                *("gateway/status", "gateway/status/numbers", "gateway/alerts/hot"),
                *(f"homeassistant/device/sim-{n}/config" for n in (1, 2)),
                *(f"sensors/sim-{n}/state" for n in (1, 2)),
            }
            eventually(lambda: sorted(wanted - set(home.received)) == [], 40, "all that is announced")
            assert home.publish("sensors/esp32-1/cmd") != "Not authorized"
            assert home.publish("homeassistant/status", "online") != "Not authorized"
            assert home.publish("homeassistant/device/esp32-1/config") == "Not authorized"
            assert home.publish("gateway/status") == "Not authorized"
            process.terminate()
    assert "refused" not in gateway.log()


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
    broker.hang_up()

    def refused() -> bool:
        client = Client(broker.port, ca_file=broker.ca_file, user="sim-2", password=old["sim-2"])
        client.close()
        return client.reason == "Not authorized"

    eventually(refused, 10, "the old password is refused")
    with connected(broker, "sim-2"), connected(broker, "esp32-3"), connected(broker, "esp32-1"):
        assert passwords(broker.folder)["esp32-1"] == old["esp32-1"]


def test_a_password_file_of_mosquittos_own_tool_holds_the_same_kind_of_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SECURE)
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
