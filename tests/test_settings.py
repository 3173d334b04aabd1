from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.core.durations import duration_text, parse_duration
from gateway.settings.alerting import AlertSettings
from gateway.settings.loading import Loaded, load_settings, read_settings
from gateway.settings.problems import SettingsError
from gateway.settings.rows import SETTINGS
from gateway.settings.table import KeepSettings, Settings, StreamSettings
from gateway.settings.values import format_size, parse_size
from tests.support.certificates import Authority

WRITTEN_FILES = ("log_file", "archive_file", "access_revocations", "flash_keys_file")

SECRET = "correct horse battery staple, and more"


def write(folder: Path, text: str) -> Path:
    path = folder / "gateway.toml"
    path.write_text(text)
    return path


def problems_of(
    overrides: dict[str, object] | None = None, file: Path | None = None, environ: dict[str, str] | None = None
) -> list[str]:
    return [str(problem) for problem in read_settings(overrides, file, environ or {}).problems]


class TestDefaults:
    def test_are_valid(self) -> None:
        assert load_settings(environ={}) == Settings()

    def test_listen_on_loopback_and_take_everything(self) -> None:
        settings = Settings()
        assert (settings.host, settings.port) == ("127.0.0.1", 8000)
        assert settings.mqtt_url == "mqtt://localhost:1883"
        assert settings.mqtt_topics == ("#",)
        assert settings.history_bytes == 256 * 1024 * 1024
        assert settings.history_age == 24 * 3600
        assert settings.flush_interval is None
        assert settings.streams["temperature"] == StreamSettings(topics=("sensors/+/state",), field="temperature")

    def test_settings_made_directly_read_no_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GATEWAY_PORT", "1234")
        assert Settings().port == 8000

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            Settings().port = 1  # type: ignore[misc]


class TestSources:
    def test_flags_win_over_environment_over_file_over_default(self, tmp_path: Path) -> None:
        file = write(tmp_path, 'port = 1\nhost = "localhost"\n[history]\nmessages = 1\ntopics = 1\n')
        environ = {"GATEWAY_PORT": "2", "GATEWAY_HISTORY_MESSAGES": "2"}
        loaded = read_settings({"port": "3"}, file, environ)
        assert loaded.settings is not None
        assert not loaded.problems
        found = loaded.settings
        assert (found.port, found.history_messages, found.history_topics, found.history_age) == (3, 2, 1, 86400)
        assert loaded.origins == {
            "port": "--port",
            "history_messages": "GATEWAY_HISTORY_MESSAGES",
            "history_topics": f"{file}: [history] topics",
            "host": f"{file}: host",
        }

    def test_every_setting_can_come_from_its_variable(self) -> None:
        # one value for each kind; what is in the table and nowhere read would be found here
        for row in SETTINGS.values():
            environ = {row.variable: "nonsense\0"}
            loaded = read_settings(None, None, environ)
            assert loaded.origins.get(row.name) == row.variable

    def test_a_file_may_name_a_setting_with_or_without_its_table(self, tmp_path: Path) -> None:
        nested = load_settings(config_file=write(tmp_path, '[mqtt]\nurl = "mqtt://one"'), environ={})
        flat = load_settings(config_file=write(tmp_path, 'mqtt_url = "mqtt://one"'), environ={})
        assert nested == flat
        assert nested.mqtt_url == "mqtt://one"

    def test_a_setting_twice_in_a_file_is_a_problem(self, tmp_path: Path) -> None:
        [problem] = problems_of(file=write(tmp_path, 'mqtt_url = "mqtt://one"\n[mqtt]\nurl = "mqtt://two"'))
        assert "is there twice" in problem

    def test_streams_and_roles_are_tables(self, tmp_path: Path) -> None:
        text = """
            [streams.humidity]
            topics = ["sensors/+/state", "rooms/#"]
            field = "humidity"
            [roles.viewer]
            subscribe = ["sensors/#", "inbox/{sub}"]
        """
        settings = load_settings(config_file=write(tmp_path, text), environ={})
        assert settings.streams == {"humidity": StreamSettings(topics=("sensors/+/state", "rooms/#"), field="humidity")}
        assert settings.roles["viewer"].subscribe == ("sensors/#", "inbox/{sub}")
        assert settings.roles["viewer"].publish == ()

    def test_rules_of_retention_are_a_list_of_tables(self, tmp_path: Path) -> None:
        text = """
            [archive]
            file = "archive.db"
            [[archive.keep]]
            topics = ["alarms/#"]
            [[archive.keep]]
            topics = ["sensors/#"]
            raw = "7d"
            minute = "90d"
            hour = "10y"
        """
        alarms, sensors = load_settings(config_file=write(tmp_path, text), environ={}).archive_keep
        assert alarms == KeepSettings(topics=("alarms/#",))
        assert (sensors.raw, sensors.minute, sensors.hour) == (7 * 86_400, 90 * 86_400, 3_650 * 86_400)
        environ = {"GATEWAY_ARCHIVE_FILE": "x", "GATEWAY_ARCHIVE_KEEP": '[{"topics": "a/#, b", "raw": 3600}]'}
        assert load_settings(environ=environ).archive_keep == (KeepSettings(topics=("a/#", "b"), raw=3600),)

    def test_all_that_is_wrong_with_rules_of_retention_is_said_at_once(self, tmp_path: Path) -> None:
        text = """
            archive_file = "archive.db"
            [[archive.keep]]
            topic = ["a/#"]
            minutes = "7d"
            [[archive.keep]]
            topics = ["a/#/b"]
            raw = "5s"
            hour = "8x"
        """
        problems = "\n".join(problems_of(file=write(tmp_path, text)))
        for said in (
            "[[archive.keep]] rule 1 topics: lacks 'topics'",
            "[[archive.keep]] rule 1 topic: has no key 'topic'\n    → did you mean topics?",
            "[[archive.keep]] rule 1 minutes: has no key 'minutes'\n    → did you mean minute?",
            "[[archive.keep]] rule 2 topics: topic filter 'a/#/b': '#' must be the last level",
            "[[archive.keep]] rule 2 raw: must be at least 1m",
            "[[archive.keep]] rule 2 hour: must be a duration",
        ):
            assert said in problems
        text = """
            [[archive.keep]]
            topics = ["a/#", "b"]
            raw = "7d"
            minute = "24h"
            [[archive.keep]]
            topics = ["a/b"]
        """
        none, shorter, never = problems_of(file=write(tmp_path, text))
        assert "[[archive.keep]] rule 1: minute = 24h is shorter than raw = 7d" in shorter
        assert "[[archive.keep]] rule 2: 'a/b' is never reached, since 'a/#' matches all of it before" in never
        assert "there are rules for an archive, and none" in none
        [near] = problems_of(file=write(tmp_path, '[[archive.keeps]]\ntopics = ["a"]'))
        assert "did you mean [[archive.keep]]?" in near

    def test_streams_can_be_json_in_the_environment(self) -> None:
        settings = load_settings(environ={"GATEWAY_STREAMS": '{"co2": {"topics": ["a/#"], "field": "co2"}}'})
        assert settings.streams == {"co2": StreamSettings(topics=("a/#",), field="co2")}

    @pytest.mark.parametrize("text", ["a/#,b/+", " a/# , b/+ ,", '["a/#", "b/+"]'])
    def test_a_list_in_the_environment_is_separated_by_commas_or_json(self, text: str) -> None:
        assert load_settings(environ={"GATEWAY_MQTT_TOPICS": text}).mqtt_topics == ("a/#", "b/+")

    def test_a_json_list_may_hold_a_filter_with_a_comma(self) -> None:
        assert load_settings(environ={"GATEWAY_MQTT_TOPICS": '["a,b"]'}).mqtt_topics == ("a,b",)

    def test_an_empty_variable_is_as_good_as_none(self) -> None:
        assert load_settings(environ={"GATEWAY_PORT": "", "GATEWAY_MQTT_PASSWORD": ""}) == Settings()

    @pytest.mark.parametrize("name", [row.name for row in SETTINGS.values() if row.empty is not ...])
    def test_every_setting_that_may_be_empty_can_be_emptied_by_a_variable_and_by_its_flag(
        self, name: str, tmp_path: Path
    ) -> None:
        row = SETTINGS[name]
        # a broken value in the file is not even looked at
        file = write(tmp_path, f"{name} = 0")
        environ = {"GATEWAY_ACCESS_ALLOW_ANONYMOUS": "true"}
        found = read_settings(None, file, environ | {row.variable: "none"})
        assert (found.problems, getattr(found.settings, name)) == ((), row.empty)
        if row.flag:
            for text in (["none"], [""]) if row.kind == "list" else ("none", ""):
                found = read_settings({name: text}, file, environ | {row.variable: "nonsense\0"})
                assert (found.problems, getattr(found.settings, name)) == ((), row.empty)

    def test_what_must_not_be_empty_takes_none_for_a_value(self) -> None:
        assert load_settings(environ={"GATEWAY_MQTT_CLIENT_ID": "none"}).mqtt_client_id == "none"
        [problem] = problems_of({"port": "none"})
        assert "whole number" in problem

    def test_the_status_can_be_published_nowhere(self, tmp_path: Path) -> None:
        assert load_settings(environ={"GATEWAY_MQTT_STATUS_TOPIC": "none"}).mqtt_status_topic == ""
        assert load_settings({"mqtt_status_topic": ""}, environ={}).mqtt_status_topic == ""
        assert (
            load_settings(config_file=write(tmp_path, '[mqtt]\nstatus_topic = ""'), environ={}).mqtt_status_topic == ""
        )

    @pytest.mark.parametrize(
        "line", ['[mqtt]\nca_file = ""', '[mqtt]\nusername = ""', '[access]\ncookie = ""', "[streams]"]
    )
    def test_an_empty_text_in_the_file_stands_for_nothing(self, line: str, tmp_path: Path) -> None:
        found = load_settings(config_file=write(tmp_path, line), environ={})
        assert (found.mqtt_ca_file, found.mqtt_username, found.access_cookie) == (None, None, None)

    def test_an_empty_secret_in_the_file_is_a_problem(self, tmp_path: Path) -> None:
        [problem] = problems_of(file=write(tmp_path, '[access]\nsecret = ""'))
        assert "at least 32 are needed" in problem

    def test_the_file_is_found_in_the_current_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, "port = 1234")
        monkeypatch.chdir(tmp_path)
        assert load_settings(environ={}).port == 1234

    def test_the_file_is_found_by_variable(self, tmp_path: Path) -> None:
        assert load_settings(environ={"GATEWAY_CONFIG": str(write(tmp_path, "port = 1234"))}).port == 1234

    def test_a_secret_can_come_from_a_file_of_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "password").write_text("hunter2\n")
        environ = {"GATEWAY_MQTT_USERNAME": "me", "GATEWAY_MQTT_PASSWORD_FILE": str(tmp_path / "password")}
        password = load_settings(environ=environ).mqtt_password
        assert password is not None
        assert password.get_secret_value() == "hunter2"

    def test_the_password_that_is_offered_to_boards_can_come_from_a_file_and_is_shown_nowhere(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "password").write_text("hunter2\n")
        url, name = "GATEWAY_FLASH_BROKER_URL", "GATEWAY_FLASH_BROKER_PASSWORD"
        from_file = {url: "mqtt://h", "GATEWAY_FLASH_BROKER_USERNAME": "me", f"{name}_FILE": str(tmp_path / "password")}
        for environ in (from_file, {url: "mqtt://me:hunter2@h"}):
            settings = load_settings(environ=environ)
            assert (password := settings.flash_broker_password) is not None
            assert password.get_secret_value() == "hunter2"
            assert settings.flash_broker_url == "mqtt://h"
            shown = [row.show(getattr(settings, row.name)) for row in SETTINGS.values()]
            assert "hunter2" not in repr(settings) + repr(shown)

    def test_a_secret_and_its_file_together_are_a_problem(self, tmp_path: Path) -> None:
        environ = {"GATEWAY_MQTT_PASSWORD": "a", "GATEWAY_MQTT_PASSWORD_FILE": "b", "GATEWAY_MQTT_USERNAME": "c"}
        [problem] = problems_of(environ=environ)
        assert problem.startswith("GATEWAY_MQTT_PASSWORD_FILE: GATEWAY_MQTT_PASSWORD is set, too")

    def test_a_secret_file_that_is_missing_is_a_problem(self, tmp_path: Path) -> None:
        [problem] = problems_of(environ={"GATEWAY_ACCESS_SECRET_FILE": str(tmp_path / "none")})
        assert "can't be read: No such file" in problem


class TestBrokerUrl:
    def test_credentials_move_out_of_the_url(self) -> None:
        settings = Settings(mqtt_url="mqtt://me:p%40ss@host:1")
        assert settings.mqtt_url == "mqtt://host:1"
        assert settings.mqtt_username == "me"
        assert settings.mqtt_password is not None
        assert settings.mqtt_password.get_secret_value() == "p@ss"

    def test_credentials_of_a_flag_win_over_those_of_the_environment(self) -> None:
        environ = {"GATEWAY_MQTT_USERNAME": "other", "GATEWAY_MQTT_PASSWORD": "other"}
        settings = load_settings({"mqtt_url": "mqtt://me:mine@host"}, environ=environ)
        assert settings.mqtt_username == "me"
        assert settings.mqtt_password is not None
        assert settings.mqtt_password.get_secret_value() == "mine"

    def test_credentials_beside_the_url_win_over_those_in_it(self) -> None:
        environ = {"GATEWAY_MQTT_URL": "mqtt://a:b@host", "GATEWAY_MQTT_USERNAME": "c", "GATEWAY_MQTT_PASSWORD": "d"}
        settings = load_settings(environ=environ)
        assert settings.mqtt_username == "c"

    @pytest.mark.parametrize(
        ("url", "way_out"),
        [
            ("localhost", "write mqtt://localhost\n"),
            ("localhost:1883", "write mqtt://localhost:1883\n"),
            ("tcp://h:1", "write mqtt://h:1\n"),
            ("ssl://h", "write mqtts://h\n"),
            ("mqt://h", "write mqtt://h\n"),
            ("MQTT://h", "write mqtt://h\n"),
            ("mqtt://h/path", "write mqtt://h\n"),
            ("mqtt://", "write it as mqtt://localhost:1883"),
            ("mqtt://h:99999", "write it as mqtt://localhost:1883"),
            ("mqtt://h:port", "write it as mqtt://localhost:1883"),
            ("mqtt://h h", "write it as mqtt://localhost:1883"),
        ],
    )
    def test_a_bad_one_is_told_with_a_way_out(self, url: str, way_out: str) -> None:
        [problem] = problems_of({"mqtt_url": url})
        assert f"--mqtt-url = '{url}'" in problem
        assert f"→ {way_out}" in problem + "\n"

    @pytest.mark.parametrize(
        "url", ["mqt://me:hunter2@h", "mqtt://me:hun@ter2@h:99999", "mqtt://me:hunt/er2@h:x", "mqtt://me:hunter2@"]
    )
    def test_a_bad_one_never_shows_its_password(self, url: str) -> None:
        text = str(problems_of({"mqtt_url": url}))
        assert text
        assert not any(part in text for part in ("hun", "er2", "ter2"))


class TestProblems:
    def test_all_are_listed_at_once_with_value_rule_and_way_out(self, tmp_path: Path) -> None:
        file = write(
            tmp_path,
            """
            [mqtt]
            url = "localhost"
            topics = ["a/#/b", "fine"]
            [history]
            byte = 1
            age = "10 parsecs"
            [log]
            format = "jsno"
            """,
        )
        environ = {"GATEWAY_PORT": "80000", "GATEWAY_MQT_URL": "x", "GATEWAY_HISTORY_BYTES": "12M"}
        with pytest.raises(SettingsError) as raised:
            load_settings({"limit_filters": "none"}, file, environ)
        text = str(raised.value)
        assert text.startswith("9 problems with the settings:\n")
        assert len(raised.value.problems) == 9
        for expected in (
            f"{file}: [mqtt] url = 'localhost': has no scheme\n    → write mqtt://localhost",
            "topic filter 'a/#/b': '#' must be the last level",
            f"{file}: [history] byte: is not a setting\n    → did you mean [history] bytes?",
            f"{file}: [history] age = '10 parsecs': must be a duration\n    → write it as 250ms, 30s, 10m, 24h or 7d",
            "= 'jsno': must be one of auto, human, json\n    → did you mean json?",
            "GATEWAY_PORT = '80000': must be in the range 0 – 65535\n    → the default is 8000",
            "GATEWAY_MQT_URL: is not a setting\n    → did you mean GATEWAY_MQTT_URL?",
            "GATEWAY_HISTORY_BYTES = '12M': has the unknown unit 'M'\n    → write 12MiB",
            "--limit-filters = 'none': must be a whole number\n    → the default is 100",
        ):
            assert expected in text

    def test_a_hint_is_given_only_where_the_names_are_alike(self) -> None:
        [problem] = problems_of(environ={"GATEWAY_FOO": "1"})
        assert "did you mean" not in problem
        [problem] = problems_of(environ={"GATEWAY_PROT": "1"})
        assert "did you mean GATEWAY_PORT?" in problem

    def test_a_payload_that_no_command_can_hold_is_a_problem(self) -> None:
        [problem] = problems_of({"limit_payload_bytes": "3MiB"})
        assert "set limit_command_bytes to at least 4198400" in problem
        assert not problems_of({"limit_payload_bytes": "3MiB", "limit_command_bytes": 4_198_400})

    def test_the_server_of_a_cluster_is_an_address_whose_password_is_not_shown(self) -> None:
        environ = {"GATEWAY_CLUSTER_URL": "valkey://me:hunter2@db:1/3"}
        settings = load_settings({}, None, environ)
        assert settings.cluster_url == "valkey://db:1/3"
        assert settings.cluster_username == "me"
        assert settings.cluster_password is not None
        assert settings.cluster_password.get_secret_value() == "hunter2"
        assert "hunter2" not in repr(settings)
        [problem] = problems_of(environ={"GATEWAY_CLUSTER_URL": "http://me:hunter2@db"})
        assert "must start with valkey://" in problem
        assert "hunter2" not in problem

    def test_an_unknown_variable_is_told_without_its_value(self) -> None:
        [problem] = problems_of(environ={"GATEWAY_MQTT_PASWORD": "hunter2"})
        assert "did you mean GATEWAY_MQTT_PASSWORD?" in problem
        assert "hunter2" not in problem

    @pytest.mark.parametrize(
        "variable",
        ["GATEWAY_CONFIG", "GATEWAY_URL", "GATEWAY_TOKEN", "GATEWAY_TEST_REQUIRE_ALL", "GATEWAY_SERVICE_HOST",
         "GATEWAY_PORT_8000_TCP_ADDR", "GATEWAYS", "OTHER"],
    )  # fmt: skip
    def test_variables_that_are_no_settings_are_left_alone(self, variable: str) -> None:
        environ = {variable: ""}
        assert not problems_of(environ=environ)

    @pytest.mark.parametrize(
        ("variable", "value"),
        [("GATEWAY_API_SERVICE_HOST", "10.0.0.1"), ("GATEWAY_API_SERVICE_PORT", "80"),
         ("GATEWAY_API_SERVICE_PORT_HTTP", "80"), ("GATEWAY_API_PORT", "tcp://10.0.0.1:80"),
         ("GATEWAY_API_PORT_80_TCP", "tcp://10.0.0.1:80"), ("GATEWAY_API_PORT_80_TCP_PROTO", "tcp"),
         ("GATEWAY_MQTT_2_PORT_1883_TCP_ADDR", "10.0.0.1"), ("GATEWAY_SERVICE_PORT", "80")],
    )  # fmt: skip
    def test_what_kubernetes_sets_for_a_service_stops_nothing(self, variable: str, value: str) -> None:
        assert not problems_of(environ={variable: value})

    @pytest.mark.parametrize(("variable", "value"), [("GATEWAY_API_PORT", "80"), ("GATEWAY_MQTT_PORT", "1883")])
    def test_a_port_that_is_a_number_is_meant_as_a_setting(self, variable: str, value: str) -> None:
        assert problems_of(environ={variable: value})

    def test_a_header_with_names_needs_a_role_and_a_proxy(self) -> None:
        whole: dict[str, object] = {
            "access_user_header": "X-Remote-User-Name",
            "access_user_role": "home",
            "forwarded_allow_ips": "10.0.0.2",
            "roles": {"home": {"subscribe": ["#"]}},
        }
        assert not problems_of(whole)
        for left_out in ("access_user_header", "access_user_role", "forwarded_allow_ips", "roles"):
            [problem] = problems_of({name: value for name, value in whole.items() if name != left_out})
            assert problem.startswith(("--access-user", "--forwarded"))
        [problem] = problems_of({**whole, "access_user_header": "X Remote"})
        assert "must be the name of a header" in problem

    def test_what_kubernetes_sets_as_port_has_its_own_way_out(self) -> None:
        [problem] = problems_of(environ={"GATEWAY_PORT": "tcp://10.0.0.1:8000"})
        assert "enableServiceLinks" in problem

    @pytest.mark.parametrize("value", [[], "", "a/#b", ["a", 1], {"a": 1}, 3, "$share/x/y", "a\0b"])
    def test_bad_topics(self, value: object, tmp_path: Path) -> None:
        assert problems_of({"mqtt_topics": value})

    @pytest.mark.parametrize(
        "text",
        ["port = ", "port = 1\nport = 2", "\xff", "[mqtt", "port = 2026-01-01", "[port]\nx = 1", "[mqtt.url]\nx = 1",
         "streams = 3", "[streams]\nx = 3", "[streams.x]\n", "[streams.x]\ntopics = []",
         '[streams.x]\ntopics = ["a"]\nfield = "a..b"', '[streams.x]\ntopics = ["a"]\nfield = "a[x]"',
         '[streams."a/b"]\ntopics = ["a"]',
         "[roles.x]\nread = []", "history_bytes = inf", "history_age = nan", "host = []", "mqtt = 1",
         'root_path = "a b"', 'access_origins = ["example.com"]', 'mqtt_status_topic = "a/+"', 'host = ""'],
    )  # fmt: skip
    def test_whatever_a_file_holds_is_a_problem_and_no_exception(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "gateway.toml"
        path.write_text(text, encoding="latin-1")
        assert problems_of(file=path)

    @given(st.dictionaries(st.sampled_from(sorted(SETTINGS)), st.text() | st.integers() | st.floats() | st.none()))
    def test_whatever_a_value_is_it_is_used_or_a_problem(self, overrides: dict[str, object]) -> None:
        loaded = read_settings(overrides, None, {})
        assert isinstance(loaded, Loaded)
        assert loaded.settings is not None

    def test_a_file_that_is_missing_is_a_problem_only_when_it_was_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert not problems_of()
        [problem] = problems_of(file=tmp_path / "none.toml")
        assert "can't be read: No such file or directory" in problem

    READ: ClassVar = [row for row in SETTINGS.values() if row.kind == "file" and row.name not in WRITTEN_FILES]

    @pytest.mark.parametrize("row", READ, ids=lambda row: row.name)
    def test_a_file_that_a_setting_names_must_be_readable(self, row: object, tmp_path: Path) -> None:
        name = row.name  # type: ignore[attr-defined]
        assert any("can't be read" in problem for problem in problems_of({name: str(tmp_path / "none.pem")}))


class TestSecrets:
    ENVIRON: ClassVar = {
        "GATEWAY_ACCESS_SECRET": SECRET,
        "GATEWAY_MQTT_PASSWORD": SECRET,
        "GATEWAY_MQTT_USERNAME": "me",
    }

    def test_are_not_shown_by_the_settings_themselves(self) -> None:
        settings = load_settings(environ=self.ENVIRON)
        assert SECRET not in repr(settings)
        assert SECRET not in str(settings)

    def test_are_not_shown_by_the_table(self) -> None:
        settings = load_settings(environ=self.ENVIRON)
        for name in ("access_secret", "mqtt_password"):
            assert SETTINGS[name].show(getattr(settings, name)) == "(set, not shown)"

    def test_are_not_shown_when_they_are_wrong(self) -> None:
        text = str(problems_of({"access_secret": "too short"}, None, {"GATEWAY_MQTT_PASSWORD": SECRET}))
        assert "at least 32 are needed" in text
        assert "too short" not in text
        assert SECRET not in text

    def test_have_no_flag(self) -> None:
        assert {row.name for row in SETTINGS.values() if row.kind == "secret"} == {
            "access_secret", "cluster_password", "flash_broker_password", "mqtt_password"
        }  # fmt: skip
        assert all(row.flag is None for row in SETTINGS.values() if row.kind == "secret")


class TestTogether:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
    def test_without_a_policy_only_loopback_is_listened_on(self, host: str) -> None:
        [problem] = problems_of({"host": host})
        assert "without an access policy the gateway listens on loopback addresses only" in problem
        assert "--allow-anonymous" in problem
        with pytest.raises(ValidationError, match="loopback"):
            Settings(host=host)

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.3.4.5", "::1", "[::1]", "localhost"])
    def test_loopback_needs_no_policy(self, host: str) -> None:
        assert not problems_of({"host": host})

    @pytest.mark.parametrize(
        "policy", [{"access_allow_anonymous": True}, {"access_secret": SECRET}, {"access_jwks_url": "https://a/b"}]
    )
    def test_with_a_policy_or_on_request_any_address_will_do(self, policy: dict[str, object]) -> None:
        assert not problems_of({"host": "0.0.0.0", **policy})

    def test_a_broken_policy_is_not_told_as_a_missing_one(self) -> None:
        [problem] = problems_of({"host": "0.0.0.0", "access_secret": "short"})
        assert "has 5 bytes, at least 32 are needed" in problem

    def test_roles_alone_are_no_policy(self) -> None:
        assert problems_of({"host": "0.0.0.0", "roles": {"a": {"subscribe": ["#"]}}})

    def test_the_anonymous_role_must_exist(self) -> None:
        [problem] = problems_of({"access_anonymous_role": "viewer", "roles": {"view": {}}})
        assert "the role 'viewer' is not defined; defined are: view" in problem

    def test_only_one_key_verifies_tokens(self) -> None:
        [problem] = problems_of({"access_secret": SECRET, "access_jwks_url": "https://a/b"})
        assert "only one of them can verify tokens" in problem

    def test_a_password_needs_a_user_name(self) -> None:
        [problem] = problems_of(environ={"GATEWAY_MQTT_PASSWORD": "x"})
        assert problem.startswith("GATEWAY_MQTT_PASSWORD: a password needs a user name")

    def test_a_certificate_needs_its_own_key(self, authority: Authority, tmp_path: Path) -> None:
        one, other = authority.issue("one"), authority.issue("other")
        right: dict[str, object] = {"tls_cert": str(one.cert), "tls_key": str(one.key)}
        assert not problems_of(right)
        assert "go together" in problems_of({"tls_cert": right["tls_cert"]})[0]
        [problem] = problems_of(right | {"tls_key": str(other.key)})
        assert "the key does not belong to the certificate" in problem
        assert "can't be used" in problems_of(right | {"tls_key": right["tls_cert"]})[0]

    def test_a_ca_is_for_tls_only(self, authority: Authority) -> None:
        [problem] = problems_of({"mqtt_ca_file": str(authority.issue("one").cert)})
        assert "is used only for mqtts://" in problem


class TestUnits:
    @pytest.mark.parametrize(
        ("text", "size"),
        [("0", 0), ("1024", 1024), ("256MiB", 2**28), ("256 mib", 2**28), ("1.5KiB", 1536), ("64kB", 64000), (7, 7)],
    )
    def test_sizes(self, text: object, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize(
        "text", ["", "MiB", "-1", "1.3", "1e3", "1 2", "1M", "1PiB", True, None, 1.5, float("nan"), float("inf"), []]
    )
    def test_what_is_no_size(self, text: object) -> None:
        with pytest.raises(ValueError, match=r"must be|has the unknown unit"):
            parse_size(text)

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("0", 0), ("10", 10), ("1.5", 1.5), ("250ms", 0.25), ("10m", 600), ("1h30m", 5400), ("1h 30m", 5400),
         ("24h", 86400), ("7d", 604800), ("2w", 1209600), (3, 3), (0.5, 0.5)],
    )  # fmt: skip
    def test_durations(self, text: object, seconds: float) -> None:
        assert parse_duration(text) == pytest.approx(seconds)

    @pytest.mark.parametrize(
        "text", ["", "m", "-1s", "1M", "1h30", "h1", "1e3s", True, None, float("inf"), float("nan")]
    )
    def test_what_is_no_duration(self, text: object) -> None:
        with pytest.raises(ValueError, match=r"duration .*: must be"):
            parse_duration(text)

    @given(st.integers(0, 2**50))
    def test_a_formatted_size_is_read_back(self, size: int) -> None:
        assert parse_size(format_size(size)) == size

    @given(st.integers(0, 10**12))
    def test_a_formatted_duration_is_read_back(self, milliseconds: int) -> None:
        assert parse_duration(duration_text(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, rel=1e-8)

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0, "0s"), (0.25, "250ms"), (30, "30s"), (90, "90s"), (600, "10m"), (86400, "24h"), (172800, "2d")],
    )
    def test_durations_are_shown_as_people_write_them(self, seconds: float, text: str) -> None:
        assert duration_text(seconds) == text


class TestTable:
    def test_every_setting_says_what_it_does(self) -> None:
        assert set(SETTINGS) == set(Settings.model_fields)
        assert all(len(row.help) > 10 and not row.help.endswith(".") for row in SETTINGS.values())

    def test_every_number_has_bounds(self) -> None:
        unbounded = [
            row.name for row in SETTINGS.values() if row.kind in ("number", "size", "duration") and not row.bounds
        ]
        assert unbounded == []

    def test_every_default_is_read_back_from_its_text(self) -> None:
        for row in SETTINGS.values():
            if row.kind not in ("table", "secret", "file") and row.default:
                loaded = read_settings({row.name: row.default}, None, {})
                assert not loaded.problems
                assert getattr(loaded.settings, row.name) == getattr(Settings(), row.name)

    @pytest.mark.parametrize("bound", [0, 1])
    def test_bounds_are_as_the_table_says(self, bound: int) -> None:
        # a command has to hold a payload, and workers share a log
        others: dict[str, dict[str, object]] = {
            "workers": {"cluster_url": "valkey://localhost"},
            "limit_payload_bytes": {"limit_command_bytes": "96MiB"},
            "limit_command_bytes": {"limit_payload_bytes": 1},
        }
        for row in SETTINGS.values():
            if row.kind in ("number", "size", "duration"):
                assert not problems_of({**others.get(row.name, {}), row.name: row.bounds.split(" – ")[bound]})

    def test_rows_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            SETTINGS["port"].name = "x"  # type: ignore[misc]


def test_a_bad_filter_is_one_problem() -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(environ={"GATEWAY_MQTT_TOPICS": "a/#/b"})
    [problem] = raised.value.problems
    assert "'#' must be the last level" in str(problem)


class TestAlerts:
    def problems(self, folder: Path, text: str) -> list[str]:
        return problems_of(file=write(folder, "[[alerts]]\n" + text))

    def test_are_read_from_the_file_and_from_a_variable(self, tmp_path: Path) -> None:
        file = write(
            tmp_path,
            '[[alerts]]\nname = "hot"\ntopics = ["a/#", "b"]\nwhere = "t > 30"\nfor = "5m"\nuntil = "t < 28"\n',
        )
        [alert] = load_settings(config_file=file, environ={}).alerts
        assert (alert.name, alert.topics, alert.hold, alert.until) == ("hot", ("a/#", "b"), 300, "t < 28")
        environ = {"GATEWAY_ALERTS": '[{"name": "quiet", "topics": "a/#,b", "silent": "10m"}]'}
        [alert] = load_settings(config_file=file, environ=environ).alerts
        assert (alert.name, alert.topics, alert.silent) == ("quiet", ("a/#", "b"), 600)
        assert read_settings(None, file, {}).origins["alerts"] == str(file)
        assert SETTINGS["alerts"].show((alert,)) == "quiet"

    @pytest.mark.parametrize(
        ("text", "place", "rule", "way_out"),
        [
            ('name = "too hot"\ntopics = ["a"]\nsilent = 9', "1 name", "can't be part of a topic", "write too-hot"),
            ('name = "a"\ntopic = ["a"]\nsilent = 9', "1 topic", "has no key 'topic'", "did you mean topics?"),
            ('name = "a"\ntopics = ["a"]\nsilnet = 9', "1 silnet", "has no key 'silnet'", "did you mean silent?"),
            ('name = "a"\ntopics = ["a"]', "1", "has neither where nor silent", "watches for"),
            ('name = "a"\ntopics = ["a"]\nsilent = 9\nwhere = "t > 1"', "1", "has both", "watches for"),
            ('name = "a"\ntopics = ["a"]\nsilent = 9\noffline = true', "1", "both silent and offline", "make two"),
            ('name = "a"\ntopics = ["a"]\noffline = true\nuntil = "t > 1"', "1", "until goes with where", "says so"),
            ('name = "a"\ntopics = ["a"]\nsilent = 9\nfor = 9', "1", "for goes with where", "next message"),
            ('name = "a"\ntopics = ["a"]\nsilent = 9\nuntil = "t > 1"', "1", "until goes with where", "next message"),
            ('name = "a"\ntopics = ["a"]\nwhere = "t >> 1"', "1 where", "Syntax error", "payload.temperature > 30"),
            ('name = "a"\ntopics = ["a"]\nwhere = "t > 1"\nuntil = "t"', "1 until", "a condition", "payload"),
            ('name = "a"\ntopics = ["a"]\nwhere = "t > 1"\nfor = "5x"', "1 for", "a duration", "30s"),
            ('name = "a"\ntopics = ["a"]\nsilent = "10ms"', "1 silent", "at least 1s", "settings.md"),
            ('name = "a"\ntopics = ["a/#/b"]\nsilent = 9', "1 topics", "last level", "sensors/#"),
            ('name = "a"\ntopics = []\nsilent = 9', "1 topics", "at least one item", "settings.md"),
            ('name = "a"\ntopics = ["a"]\nsilent = 9\nsummary = "{tpoic}"', "1 summary", "{tpoic}", "{topic}"),
        ],
    )
    def test_what_is_wrong_is_named_with_a_way_out(
        self, tmp_path: Path, text: str, place: str, rule: str, way_out: str
    ) -> None:
        start = f"{tmp_path / 'gateway.toml'}: [[alerts]] rule {place}: "
        [problem] = [text for text in self.problems(tmp_path, text) if text.startswith(start)]
        assert rule in problem.partition("→")[0]
        assert way_out in problem.partition("→")[2]

    def test_all_problems_of_all_alerts_are_told_at_once(self, tmp_path: Path) -> None:
        text = 'name = "a b"\ntopics = ["#/a"]\nwhere = "t"\n[[alerts]]\nname = "c"\nsilent = 0\ntopics = ["a"]\n'
        assert len(self.problems(tmp_path, text)) == 4

    def test_two_of_one_name_and_what_is_not_relayed(self, tmp_path: Path) -> None:
        one = 'name = "a"\ntopics = ["a/#"]\nsilent = 9\n'
        [twice] = self.problems(tmp_path, one + "[[alerts]]\n" + one)
        assert "two alerts 'a'" in twice
        [unheard] = problems_of({"mqtt_topics": ["b/#"]}, write(tmp_path, "[[alerts]]\n" + one))
        assert "nothing that 'a/#' matches is relayed" in unheard

    def test_their_own_topics_are_relayed(self) -> None:
        alert = AlertSettings(name="a", topics=("a/b",), silent=9)
        assert Settings(alerts=(alert,), mqtt_topics=("a/#",)).relayed_topics == ("a/#", "gateway/alerts/+")
        assert Settings(alerts=(alert,)).relayed_topics == ("#",)
        assert Settings(mqtt_topics=("a/#",)).relayed_topics == ("a/#",)

    @pytest.mark.parametrize("topic", ["gateway/#", "+/alerts", ""])
    def test_their_topic_is_the_beginning_of_a_topic(self, topic: str, tmp_path: Path) -> None:
        assert problems_of(file=write(tmp_path, f'alert_topic = "{topic}"'))


class TestDecode:
    RULES = """
        [[decode]]
        topics = ["spBv1.0/#"]
        as = "sparkplug"

        [[decode]]
        topics = "lora/+/up, lora/+/log"
        as = ["gzip", "cayenne"]
        """

    def test_rules_are_tables_in_their_order(self, tmp_path: Path) -> None:
        rules = load_settings(config_file=write(tmp_path, self.RULES), environ={}).decode
        assert [str(rule) for rule in rules] == ["spBv1.0/# as sparkplug", "lora/+/up lora/+/log as gzip+cayenne"]
        assert [rule.make().name for rule in rules] == ["sparkplug", "gzip+cayenne"]
        assert SETTINGS["decode"].show(rules) == "spBv1.0/#, lora/+/up lora/+/log"
        assert (SETTINGS["decode"].key, SETTINGS["decode"].flag) == ("[[decode]]", None)

    def test_rules_can_be_json_in_the_environment(self) -> None:
        text = '[{"topics": ["a/#"], "as": "line"}]'
        assert [str(rule) for rule in load_settings(environ={"GATEWAY_DECODE": text}).decode] == ["a/# as line"]

    def test_all_that_is_wrong_is_told_at_once_with_what_was_meant(self, tmp_path: Path) -> None:
        text = """
            [[decode]]
            topics = ["a/#"]
            as = "sparkplag"

            [[decode]]
            topics = ["b/#"]
            as = ["cbor", "gzip"]

            [[decode]]
            topics = ["c/#"]
            as = "protobuf"
            message = "m"
            """
        file = write(tmp_path, text)
        found = problems_of(file=file)
        assert [problem.partition(str(file))[2].splitlines() for problem in found] == [
            [": [[decode]] rule 1 as: there is no format 'sparkplag'", "    → did you mean sparkplug?"],
            [
                ": [[decode]] rule 2 as: 'gzip' can't read what 'cbor' makes",
                "    → the outermost comes first: gzip or zlib, then one format; senml behind cbor",
            ],
            [
                ": [[decode]] rule 3 schema_file: is needed for 'protobuf'",
                "    → name the descriptor set (protobuf) or the schema (avro)",
            ],
        ]

    def test_what_a_rule_has_is_held_to_its_form(self, tmp_path: Path) -> None:
        text = '[[decode]]\ntopics = ["a/#/b"]\nas = "line"\ntopic = "x"\n[[decode]]\ntopics = []\n'
        found = "\n".join(problems_of(file=write(tmp_path, text)))
        assert "[[decode]] rule 1 topic: has no key 'topic'\n    → did you mean topics?" in found
        assert "[[decode]] rule 1 topics: topic filter 'a/#/b'" in found
        assert "[[decode]] rule 2 as: lacks 'as'" in found
        assert "[[decode]] rule 2 topics: must be a list with at least one item" in found
        assert "must be" in "\n".join(problems_of({"decode": {"topics": "a"}}))


def test_settings_are_read_again_from_where_they_came(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("one\n")
    settings = load_settings({"port": 1234, "mqtt_username": "me"}, environ={"GATEWAY_MQTT_PASSWORD_FILE": str(secret)})
    secret.write_text("two\n")
    copy = settings.model_copy(update={"port": 5})
    for each in (settings, copy):
        again = each.again()
        assert again.port == 1234
        assert again.mqtt_password is not None
        assert again.mqtt_password.get_secret_value() == "two"
    secret.unlink()
    with pytest.raises(SettingsError, match="GATEWAY_MQTT_PASSWORD_FILE"):
        settings.again()
    made = Settings()
    assert made.again() is made
