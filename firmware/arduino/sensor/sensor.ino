// A sensor for the gateway as an Arduino sketch: the same topics and payloads as the MicroPython program.
//
// Board:      any ESP32 with Wi-Fi; "esp32 by Espressif Systems" 3.0 or later in the boards manager
// Library:    Adafruit BME280 Library
// Secrets:    copy secrets.example.h to secrets.h and fill it in; git ignores secrets.h
//
// MQTT is ESP-IDF's own client, which is part of the board package: it has QoS 1, a will and TLS, keeps what it could
// not deliver, and reconnects by itself. A sketch for a sensor of another kind changes only FIELDS and readSensor().
// Without a network for ten minutes it opens an access point, whose page takes another one; it measures meanwhile.
// What it has not: updates and settings over the air, and sleep.

#include <Adafruit_BME280.h>
#include <DNSServer.h>
#include <Preferences.h>
#include <WebServer.h>
#include <WiFi.h>
#include <Wire.h>
#include <esp_random.h>
#include <esp_system.h>
#include <esp_timer.h>
#include <math.h>
#include <mqtt_client.h>
#include <stdarg.h>
#include <sys/time.h>
#include <time.h>

#include "secrets.h"

// These must not contain a quotation mark or a backslash.
static const char *NAME = "Kitchen";
static const char *MODEL = "ESP32 + BME280";
static const char *FIRMWARE = "arduino-sensor 1.1.0";
static const bool DISCOVERY = true;  // for Home Assistant
static const int SCL_PIN = 22;
static const int SDA_PIN = 21;
static const uint32_t DIAG_MS = 300000;             // between two reports of how the board is
static const uint32_t AP_AFTER_MS = 600000;         // without a network, before the access point opens
static const uint32_t JOIN_MS = 20000;              // between two attempts to join a network
static const uint32_t JOIN_BESIDE_MS = 180000;      // and while the access point is open
static const time_t FIRST_VALID_TIME = 1704067200;  // 2024: a clock that says less was never set
static const float MIN_INTERVAL = 0.01f, MAX_INTERVAL = 86400;  // seconds

static const struct Field {
  const char *name, *label, *unit, *deviceClass;
  int low, high, decimals;
  bool diagnostic;
} FIELDS[] = {
    {"temperature", "Temperature", "°C", "temperature", -40, 85, 2, false},
    {"humidity", "Humidity", "%", "humidity", 0, 100, 1, false},
    {"pressure", "Pressure", "hPa", "atmospheric_pressure", 300, 1100, 2, false},
    {"rssi", "Signal", "dBm", "signal_strength", -120, 0, 0, true},
};
enum Level { DEBUG_LEVEL, INFO_LEVEL, WARNING_LEVEL, ERROR_LEVEL };
static const char *LEVELS[] = {"debug", "info", "warning", "error"};

static Adafruit_BME280 bme;
static Preferences memory;
static DNSServer names;
static WebServer web(80);
static esp_mqtt_client_handle_t mqtt;

static char id[32], clientId[40], discoveryTopic[64], discoveryOfItselfTopic[72];  // clientId names its access point, too
static char stateTopic[64], statusTopic[64], metaTopic[64], diagTopic[64], logTopic[64], cmdTopic[64];
static float intervalSeconds = 10;
static uint32_t boot, seq, lines, dropped, reconnects, wifiJoins, heapLowest = UINT32_MAX;
static uint32_t lastReading, lastTry, lastDiag;
static uint32_t lastNetwork, lastJoin;
static char givenSsid[33], givenPassword[64], token[17];  // of the access point's page
static bool isGiven, isOpen;
static bool sensorFound, wifiJoined, everConnected;
static int logLevel = INFO_LEVEL;
static char commandError[128];

// What the MQTT task leaves for loop(), which does all else. A fifth command within ten milliseconds is lost.
static volatile bool justConnected;
static struct {
  char text[128];
  bool retained, tooLong;
} commands[4];
static volatile uint8_t commandsIn, commandsOut;

static char payload[3072];
static int used;

// Appends to the payload; what does not fit is left out, and then nothing is published.
static void append(const char *format, ...) {
  va_list values;
  va_start(values, format);
  int length = vsnprintf(payload + used, sizeof payload - used, format, values);
  va_end(values);
  used = min(used + length, (int)sizeof payload);
}

// A text for people as JSON; what is not ASCII becomes a question mark, for a text that was cut may end inside a character.
static void appendQuoted(const char *text) {
  append("\"");
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') append("\\");
    append("%c", *text < ' ' || *text > '~' ? '?' : *text);
  }
  append("\"");
}

// Milliseconds since 1970, 0 until the clock is set.
static int64_t nowMs() {
  timeval now;
  gettimeofday(&now, nullptr);
  return now.tv_sec < FIRST_VALID_TIME ? 0 : (int64_t)now.tv_sec * 1000 + now.tv_usec / 1000;
}

// enqueue never waits: a message that can't be sent yet is kept and sent later
static bool publish(const char *topic, int qos, bool retain) {
  return used < (int)sizeof payload && esp_mqtt_client_enqueue(mqtt, topic, payload, used, qos, retain, true) >= 0;
}

// A line of the log: on the serial line, and to the broker.
static void say(Level level, const char *format, ...) {
  char text[161];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  Serial.printf("%s\n", text);
  if (level < logLevel) return;
  int64_t up = esp_timer_get_time() / 1000, ts = nowMs();
  used = 0;
  append("{\"n\":%u,\"boot\":%u,\"up\":%lld.%03d", (unsigned)lines++, (unsigned)boot, (long long)(up / 1000),
         (int)(up % 1000));
  if (ts) append(",\"ts\":%lld.%03d", (long long)(ts / 1000), (int)(ts % 1000));
  append(",\"level\":\"%s\",\"text\":", LEVELS[level]);
  appendQuoted(text);
  append("}");
  publish(logTopic, 0, false);
}

static const char *startedBy() {
  switch (esp_reset_reason()) {
    case ESP_RST_POWERON:
    case ESP_RST_BROWNOUT:
      return "power";
    case ESP_RST_INT_WDT:
    case ESP_RST_TASK_WDT:
    case ESP_RST_WDT:
      return "watchdog";
    case ESP_RST_DEEPSLEEP:
      return "deep sleep";
    case ESP_RST_SW:
    case ESP_RST_PANIC:
    case ESP_RST_EXT:
      return "reset";
    default:
      return "unknown";
  }
}

static void describe() {
  used = 0;
  append("{\"schema\":1,\"name\":\"%s\",\"model\":\"%s\",\"firmware\":\"%s\",\"interval\":%g,\"fields\":{", NAME, MODEL,
         FIRMWARE, intervalSeconds);
  for (const Field &field : FIELDS) {
    append("%s\"%s\":{\"unit\":\"%s\",\"device_class\":\"%s\",\"min\":%d,\"max\":%d}", &field == FIELDS ? "" : ",",
           field.name, field.unit, field.deviceClass, field.low, field.high);
  }
  append("}");
  if (!sensorFound || commandError[0]) {
    append(",\"errors\":{%s%s", sensorFound ? "" : "\"bme280\":\"not found\"",
           commandError[0] ? sensorFound ? "\"cmd\":" : ",\"cmd\":" : "");
    if (commandError[0]) appendQuoted(commandError);
    append("}");
  }
  append(",\"profile\":\"mains\",\"started_by\":\"%s\"", startedBy());
  if (dropped) append(",\"dropped\":%u", (unsigned)dropped);
  if (reconnects) append(",\"reconnects\":%u", (unsigned)reconnects);
  append("}");
  publish(metaTopic, 1, true);
}

static void announceBegin(const char *topic) {
  append("\"o\":{\"name\":\"sensors\",\"sw\":\"%s\"},\"state_topic\":\"%s\",\"availability\":[{\"topic\":\"%s\",", FIRMWARE,
         topic, statusTopic);
  append("\"value_template\":\"{{ 'offline' if value == 'offline' else 'online' }}\"}],\"qos\":1,\"cmps\":{");
}

static void announceOfItself(const char *name, const char *label, const char *more) {
  append("\"%s\":{\"p\":\"sensor\",\"name\":\"%s\",\"unique_id\":\"sensors_%s_%s\",\"entity_category\":\"diagnostic\",", name,
         label, id, name);
  append("\"value_template\":\"{{ value_json.%s }}\"%s}", name, more);
}

// Two messages by which Home Assistant finds all fields, and what the board says of itself.
static void announce() {
  if (!DISCOVERY) return;
  used = 0;
  append("{\"dev\":{\"ids\":[\"sensors_%s\"]},", id);
  announceBegin(diagTopic);
  char elsewhere[96];
  snprintf(elsewhere, sizeof elsewhere, ",\"state_topic\":\"%s\"", metaTopic);
  announceOfItself("firmware", "Firmware", elsewhere);
  append(",");
  announceOfItself("started_by", "Started by", "");
  append(",");
  // what grows old does so after three reports
  announceOfItself("heap_free", "Heap free",
                   ",\"device_class\":\"data_size\",\"unit_of_measurement\":\"B\",\"expire_after\":900");
  append(",");
  announceOfItself("uptime", "Uptime",
                   ",\"device_class\":\"duration\",\"unit_of_measurement\":\"s\",\"expire_after\":900");
  append("}}");
  publish(discoveryOfItselfTopic, 1, true);

  used = 0;
  append("{\"dev\":{\"ids\":[\"sensors_%s\"],\"name\":\"%s\",\"mf\":\"MQTT-to-browser gateway\",\"mdl\":\"%s\",\"sw\":\"%s\"},", id,
         NAME, MODEL, FIRMWARE);
  announceBegin(stateTopic);
  for (const Field &field : FIELDS) {
    append("\"%s\":{\"p\":\"sensor\",\"name\":\"%s\",\"unique_id\":\"sensors_%s_%s\",\"device_class\":\"%s\",", field.name,
           field.label, id, field.name, field.deviceClass);
    append("\"unit_of_measurement\":\"%s\",\"state_class\":\"measurement\",\"value_template\":\"{{ value_json.%s }}\",",
           field.unit, field.name);
    append("\"expire_after\":%d,\"suggested_display_precision\":%d%s},", max(30, (int)(3 * intervalSeconds)),
           field.decimals, field.diagnostic ? ",\"entity_category\":\"diagnostic\"" : "");
  }
  append("\"restart\":{\"p\":\"button\",\"name\":\"Restart\",\"unique_id\":\"sensors_%s_restart\",", id);
  append("\"device_class\":\"restart\",\"entity_category\":\"config\",\"command_topic\":\"%s\",", cmdTopic);
  append("\"payload_press\":\"{\\\"reboot\\\":true}\"}}}");
  publish(discoveryTopic, 1, true);
}

// How the board is.
static void report() {
  lastDiag = millis();
  uint32_t heapFree = ESP.getFreeHeap();
  heapLowest = min(heapLowest, heapFree);
  used = 0;
  append("{\"boot\":%u,\"started_by\":\"%s\",\"uptime\":%lld,\"heap_free\":%u,\"heap_used\":%u,\"heap_lowest\":%u", (unsigned)boot,
         startedBy(), (long long)(esp_timer_get_time() / 1000000), (unsigned)heapFree,
         (unsigned)(ESP.getHeapSize() - heapFree), (unsigned)heapLowest);
  append(",\"reconnects\":%u,\"dropped\":%u", (unsigned)reconnects, (unsigned)dropped);
  int64_t ts = nowMs();
  if (ts) append(",\"ts\":%lld", (long long)(ts / 1000));
  append(",\"wifi_joins\":%u", (unsigned)wifiJoins);
  if (WiFi.isConnected()) {
    int rssi = WiFi.RSSI();
    append(",\"rssi\":%d,\"wifi_quality\":%d", rssi, max(0, min(100, 2 * (rssi + 100))));
  }
  append("}");
  publish(diagTopic, 1, true);
}

// Values in the order of FIELDS, without the signal; NAN for what could not be measured.
static void readSensor(float *values) {
  values[0] = bme.readTemperature();
  values[1] = bme.readHumidity();
  values[2] = bme.readPressure() / 100;
}

static void measure() {
  const int count = sizeof FIELDS / sizeof FIELDS[0];
  float values[count];
  bool any = false;
  int64_t ts = nowMs();
  readSensor(values);
  used = 0;
  append("{");
  if (ts) append("\"ts\":%lld.%03d,", (long long)(ts / 1000), (int)(ts % 1000));
  append("\"seq\":%u,\"boot\":%u", (unsigned)seq, (unsigned)boot);
  for (int i = 0; i < count - 1; i++) {
    if (!isfinite(values[i])) continue;  // a reading that failed is not a reading
    append(",\"%s\":%.*f", FIELDS[i].name, FIELDS[i].decimals, values[i]);
    any = true;
  }
  if (!any) {  // perhaps it was unplugged: look for it again
    sensorFound = false;
    lastTry = millis();
    say(WARNING_LEVEL, "bme280: no reading");
    describe();
    return;
  }
  if (WiFi.isConnected()) append(",\"rssi\":%d", (int)WiFi.RSSI());
  append("}");
  seq++;
  if (!publish(stateTopic, 1, false)) dropped++;
  if (logLevel == DEBUG_LEVEL) {
    char text[150];
    snprintf(text, sizeof text, "%.149s", payload);
    say(DEBUG_LEVEL, "reading: %s", text);
  }
}

// -- commands

static const char *skip(const char *at, const char *characters) { return at + strspn(at, characters); }

// Takes one member of a flat JSON object apart and goes behind it; false where there is none, or another JSON.
static bool nextMember(const char *&at, char *name, char *value, int size) {
  at = skip(at, " ,{\t\r\n");
  if (*at != '"') return false;
  at++;
  int length = (int)strcspn(at, "\"");
  snprintf(name, size, "%.*s", length, at);
  at = skip(at + length, "\" ");
  if (*at != ':') return false;
  at++;
  at = skip(at, " \"");
  length = (int)strcspn(at, "\",} \r\n");
  if (length == 0 || strchr("[{", *at) != nullptr) return false;
  snprintf(value, size, "%.*s", length, at);
  at = skip(at + length, "\" \t\r\n");
  return *at == ',' || *at == '}';
}

static void refuse(const char *format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(commandError, sizeof commandError, format, values);
  va_end(values);
  say(WARNING_LEVEL, "command: %s", commandError);
}

// What it asks for, all of it or nothing.
static void obey(const char *json, bool retained, bool tooLong) {
  char name[24], value[24];
  float seconds = 0;
  int level = -1, members = 0;
  bool reboot = false;
  const char *at = json;
  while (*json == '{' && !tooLong && nextMember(at, name, value, sizeof name)) {
    members++;
    char *end;
    if (strcmp(name, "interval") == 0) {
      seconds = strtof(value, &end);
      if (*end) return refuse("interval is a number of seconds, not %s", value);
      if (!(seconds >= MIN_INTERVAL && seconds <= MAX_INTERVAL))
        return refuse("interval is from %g to %d seconds, not %s", MIN_INTERVAL, (int)MAX_INTERVAL, value);
    } else if (strcmp(name, "reboot") == 0) {
      if (strcmp(value, "true") != 0) return refuse("reboot takes true, not %s", value);
      reboot = true;
    } else if (strcmp(name, "log") == 0) {
      for (level = ERROR_LEVEL; level >= 0 && strcmp(value, LEVELS[level]) != 0;) level--;
      if (level < 0) return refuse("log takes one of debug, info, warning, error, not \"%s\"", value);
    } else {
      return refuse("unknown command \"%s\": known are interval, reboot, log", name);
    }
  }
  if (members == 0 || *at != '}' || *skip(at + 1, " \t\r\n") != 0) return refuse("a command is a JSON object such as {\"interval\": 5}");
  commandError[0] = 0;
  if (seconds > 0) {
    intervalSeconds = seconds;
    memory.putFloat("interval", intervalSeconds);
    lastReading = millis() - (uint32_t)(intervalSeconds * 1000);  // the next reading comes at once
    say(INFO_LEVEL, "command: interval %g s", intervalSeconds);
    announce();
  }
  if (level >= 0) {
    logLevel = level;
    say(INFO_LEVEL, "command: log %s", LEVELS[level]);
  }
  if (!reboot) return;
  if (retained) {  // it would come again after every start
    say(INFO_LEVEL, "command: a retained reboot is ignored");
    return;
  }
  say(INFO_LEVEL, "command: reboot");
  esp_mqtt_client_publish(mqtt, statusTopic, "offline", 0, 1, true);
  esp_mqtt_client_stop(mqtt);
  ESP.restart();
}

static void onMqtt(void *, esp_event_base_t, int32_t eventId, void *eventData) {
  esp_mqtt_event_handle_t event = (esp_mqtt_event_handle_t)eventData;
  if (eventId == MQTT_EVENT_CONNECTED) {
    justConnected = true;
  } else if (eventId == MQTT_EVENT_DATA && event->current_data_offset == 0) {
    auto &command = commands[commandsIn % 4];
    if ((uint8_t)(commandsIn - commandsOut) == 4) return;
    command.tooLong = event->total_data_len >= (int)sizeof command.text || event->data_len != event->total_data_len;
    command.retained = event->retain;
    snprintf(command.text, sizeof command.text, "%.*s", event->data_len, event->data);
    commandsIn = commandsIn + 1;
  }
}

// -- the network, and the access point while there is none

// Joins the network that was given on the page, or that of secrets.h: attempts take turns.
static void join() {
  lastJoin = millis();
  isGiven = givenSsid[0] && !isGiven;
  WiFi.disconnect();
  WiFi.begin(isGiven ? givenSsid : WIFI_SSID, isGiven ? givenPassword : WIFI_PASSWORD);
}

#ifdef AP_PASSWORD
static_assert(sizeof AP_PASSWORD > 8 && sizeof AP_PASSWORD <= 64, "AP_PASSWORD has 8 to 63 characters");

static bool isAskedByItsName() { return web.hostHeader() == WiFi.softAPIP().toString(); }

// Every name is the board's address here, so this is where a phone comes that looks for the Internet.
static void sendOn() {
  web.sendHeader("Location", "http://" + WiFi.softAPIP().toString() + "/");
  web.send(302, "text/plain", "");
}

static void showPage(int status, const char *note) {
  used = 0;
  append("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">");
  append("<title>%s</title><h1>%s</h1><p>%s</p><form method=\"post\" action=\"/\">", clientId, clientId, note);
  append("<input type=\"hidden\" name=\"token\" value=\"%s\"><p><label>Wi-Fi, also a hidden one<br>", token);
  append("<input name=\"ssid\" autocapitalize=\"none\"></label><p><label>Its password; none for an open network<br>");
  append("<input name=\"password\" type=\"password\" autocomplete=\"new-password\"></label><p><button>Try it</button></form>");
  web.send(status, "text/html; charset=utf-8", payload);
}

static void takePage() {
  if (!isAskedByItsName() || web.arg("token") != token) return showPage(403, "An old page: send this one.");
  String ssid = web.arg("ssid"), password = web.arg("password");
  if (ssid.length() < 1 || ssid.length() > 32) return showPage(400, "A network's name has 1 to 32 bytes.");
  if (password.length() && (password.length() < 8 || password.length() > 63))
    return showPage(400, "A password has 8 to 63 bytes.");
  memory.putString("ssid", ssid);
  memory.putString("password", password);
  web.send(200, "text/plain", "The board restarts now and tries it; the network before has its turns, too.");
  delay(500);  // until that has arrived
  ESP.restart();
}

static void openPoint() {
  lastNetwork = millis();  // where it can't, it tries again as much later
  WiFi.setAutoReconnect(false);  // trying, a station takes the radio from who is connected
  WiFi.disconnect();
  WiFi.mode(WIFI_AP_STA);
  if (!WiFi.softAP(clientId, AP_PASSWORD)) return;
  isOpen = true;
  lastJoin = millis();
  snprintf(token, sizeof token, "%08x%08x", (unsigned)esp_random(), (unsigned)esp_random());
  names.start(53, "*", WiFi.softAPIP());
  web.begin();
  say(WARNING_LEVEL, "wifi: no network for %u s: the access point opens", (unsigned)(AP_AFTER_MS / 1000));
}

static void closePoint() {
  web.close();
  names.stop();
  WiFi.softAPdisconnect(true);
  WiFi.mode(WIFI_STA);
  WiFi.setAutoReconnect(true);
  isOpen = false;
}
#endif

static void keepNetwork() {
  if (WiFi.isConnected() != wifiJoined) {
    wifiJoined = !wifiJoined;
    wifiJoins += wifiJoined;
    lastJoin = millis();
    say(wifiJoined ? INFO_LEVEL : WARNING_LEVEL, "wifi: %s %s", wifiJoined ? "joined" : "lost",
        isGiven ? givenSsid : WIFI_SSID);
  }
  if (wifiJoined) lastNetwork = millis();
#ifdef AP_PASSWORD
  if (isOpen && wifiJoined) closePoint();
  if (isOpen) {
    names.processNextRequest();
    web.handleClient();
    if (WiFi.softAPgetStationNum() > 0) return;
  } else if (millis() - lastNetwork >= AP_AFTER_MS) {
    openPoint();
  }
#endif
  if (!wifiJoined && millis() - lastJoin >= (isOpen ? JOIN_BESIDE_MS : JOIN_MS)) join();
}

static void connectMqtt() {
  static esp_mqtt_client_config_t config = {};
  config.broker.address.uri = MQTT_URL;
#ifdef MQTT_CA
  config.broker.verification.certificate = MQTT_CA;  // with mqtts://
#endif
  config.credentials.client_id = clientId;
  config.credentials.username = MQTT_USERNAME;
  config.credentials.authentication.password = MQTT_PASSWORD;
  config.session.keepalive = 30;
  config.session.disable_clean_session = true;  // commands sent while it is away arrive later
  config.session.last_will.topic = statusTopic;
  config.session.last_will.msg = "offline";
  config.session.last_will.qos = 1;
  config.session.last_will.retain = 1;
  config.outbox.limit = 16 * 1024;  // bytes kept while the broker is away
  mqtt = esp_mqtt_client_init(&config);
  esp_mqtt_client_register_event(mqtt, MQTT_EVENT_ANY, onMqtt, nullptr);
  esp_mqtt_client_start(mqtt);
}

void setup() {
  Serial.begin(115200);
  uint64_t mac = ESP.getEfuseMac();  // the first byte of the address is the lowest
  snprintf(id, sizeof id, "esp32-%02x%02x%02x", (unsigned)(mac >> 24 & 0xff), (unsigned)(mac >> 32 & 0xff),
           (unsigned)(mac >> 40 & 0xff));
  snprintf(stateTopic, sizeof stateTopic, "sensors/%s/state", id);
  snprintf(statusTopic, sizeof statusTopic, "sensors/%s/status", id);
  snprintf(metaTopic, sizeof metaTopic, "sensors/%s/meta", id);
  snprintf(diagTopic, sizeof diagTopic, "sensors/%s/diag", id);
  snprintf(logTopic, sizeof logTopic, "sensors/%s/log", id);
  snprintf(cmdTopic, sizeof cmdTopic, "sensors/%s/cmd", id);
  snprintf(discoveryTopic, sizeof discoveryTopic, "homeassistant/device/%s/config", id);
  snprintf(discoveryOfItselfTopic, sizeof discoveryOfItselfTopic, "homeassistant/device/%s/diag/config", id);
  snprintf(clientId, sizeof clientId, "sensor-%s", id);

  memory.begin("sensor", false);
  boot = memory.getUInt("boot", 0) + 1;
  memory.putUInt("boot", boot);
  intervalSeconds = memory.getFloat("interval", intervalSeconds);

#ifdef AP_PASSWORD
  web.on("/", HTTP_GET, [] { isAskedByItsName() ? showPage(200, "Which network shall it join?") : sendOn(); });
  web.on("/", HTTP_POST, takePage);
  web.onNotFound(sendOn);
#endif

  Wire.begin(SDA_PIN, SCL_PIN);
  sensorFound = bme.begin(0x76, &Wire);

  WiFi.mode(WIFI_STA);
  WiFi.setAutoReconnect(true);
  memory.getString("ssid", givenSsid, sizeof givenSsid);
  memory.getString("password", givenPassword, sizeof givenPassword);
  join();
  configTime(0, 0, "pool.ntp.org");
  connectMqtt();
  lastReading = millis() - (uint32_t)(intervalSeconds * 1000);  // the first one is due
  say(INFO_LEVEL, "%s: %s, boot %u, started by %s", id, FIRMWARE, (unsigned)boot, startedBy());
  if (!sensorFound) say(WARNING_LEVEL, "bme280: not found");
}

void loop() {
  keepNetwork();
  if (justConnected) {
    justConnected = false;
    reconnects += everConnected;
    everConnected = true;
    esp_mqtt_client_subscribe(mqtt, cmdTopic, 1);
    esp_mqtt_client_enqueue(mqtt, statusTopic, "online", 0, 1, true, true);
    describe();
    report();
    announce();
    say(INFO_LEVEL, "mqtt: connected");
  }
  while (commandsOut != commandsIn) {
    const auto &command = commands[commandsOut % 4];
    obey(command.text, command.retained, command.tooLong);
    describe();
    commandsOut = commandsOut + 1;
  }
  if (!sensorFound && millis() - lastTry > 10000) {
    lastTry = millis();
    sensorFound = bme.begin(0x76, &Wire);
    if (sensorFound) describe();
  }
  if (sensorFound && millis() - lastReading >= (uint32_t)(intervalSeconds * 1000)) {
    lastReading = millis();
    measure();
  }
  if (everConnected && millis() - lastDiag >= DIAG_MS) report();
  delay(10);
}
