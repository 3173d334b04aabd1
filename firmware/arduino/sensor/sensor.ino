// A sensor for the gateway as an Arduino sketch: the same topics and payloads as the MicroPython program.
//
// Board:      any ESP32 with Wi-Fi; "esp32 by Espressif Systems" 3.0 or later in the boards manager
// Library:    Adafruit BME280 Library
// Secrets:    copy secrets.example.h to secrets.h and fill it in; git ignores secrets.h
//
// MQTT is ESP-IDF's own client, which is part of the board package: it has QoS 1, a will and TLS, keeps what it could
// not deliver, and reconnects by itself. A sketch for a sensor of another kind changes only measure() and describe().

#include <Adafruit_BME280.h>
#include <Preferences.h>
#include <WiFi.h>
#include <Wire.h>
#include <math.h>
#include <mqtt_client.h>
#include <stdarg.h>
#include <sys/time.h>
#include <time.h>

#include "secrets.h"

static const char *NAME = "Kitchen";
static const char *MODEL = "ESP32 + BME280";
static const char *FIRMWARE = "arduino-sensor 1.0.0";
static const int SCL_PIN = 22;
static const int SDA_PIN = 21;
static const time_t FIRST_VALID_TIME = 1704067200;  // 2024: a clock that says less was never set

static Adafruit_BME280 bme;
static Preferences memory;
static esp_mqtt_client_handle_t mqtt;

static char id[32], stateTopic[64], statusTopic[64], metaTopic[64], cmdTopic[64];
static float intervalSeconds = 10;
static uint32_t boot, seq;
static uint32_t lastReading, lastTry;
static bool sensorFound;

// What the MQTT task leaves for loop(), which alone touches the sensor and the memory.
static volatile bool justConnected, rebootWanted;
static volatile float intervalWanted;

static char payload[1024];
static int used;

// Appends to the payload; what does not fit is left out, and then nothing is published.
static void append(const char *format, ...) {
  va_list values;
  va_start(values, format);
  int length = vsnprintf(payload + used, sizeof payload - used, format, values);
  va_end(values);
  used = min(used + length, (int)sizeof payload);
}

static void publish(const char *topic, bool retain) {
  // enqueue never waits: a message that can't be sent yet is kept and sent later
  if (used < (int)sizeof payload) esp_mqtt_client_enqueue(mqtt, topic, payload, used, 1, retain, true);
}

static void describeField(const char *name, const char *unit, const char *deviceClass, int low, int high) {
  append("%s\"%s\":{\"unit\":\"%s\",\"device_class\":\"%s\",\"min\":%d,\"max\":%d}",
         payload[used - 1] == '{' ? "" : ",", name, unit, deviceClass, low, high);
}

// NAME, MODEL and FIRMWARE must not contain a quotation mark or a backslash.
static void describe() {
  used = 0;
  append("{\"schema\":1,\"name\":\"%s\",\"model\":\"%s\",\"firmware\":\"%s\",\"interval\":%g,\"fields\":{", NAME, MODEL,
         FIRMWARE, intervalSeconds);
  describeField("temperature", "°C", "temperature", -40, 85);
  describeField("humidity", "%", "humidity", 0, 100);
  describeField("pressure", "hPa", "atmospheric_pressure", 300, 1100);
  describeField("rssi", "dBm", "signal_strength", -120, 0);
  append("}%s}", sensorFound ? "" : ",\"errors\":{\"bme280\":\"not found\"}");
  publish(metaTopic, true);
}

static void add(const char *name, float value, int decimals) {
  if (isfinite(value)) append(",\"%s\":%.*f", name, decimals, value);  // a reading that failed is not a reading
}

static void measure() {
  used = 0;
  append("{");
  timeval now;
  gettimeofday(&now, nullptr);
  if (now.tv_sec >= FIRST_VALID_TIME) append("\"ts\":%lld.%03d,", (long long)now.tv_sec, (int)(now.tv_usec / 1000));
  append("\"seq\":%u,\"boot\":%u", (unsigned)seq, (unsigned)boot);
  if (sensorFound) {
    add("temperature", bme.readTemperature(), 2);
    add("humidity", bme.readHumidity(), 1);
    add("pressure", bme.readPressure() / 100, 2);
  }
  add("rssi", WiFi.RSSI(), 0);
  append("}");
  publish(stateTopic, false);
  seq++;
}

// What follows "name": in a flat JSON object; an empty text when it isn't there.
static const char *valueOf(const char *json, const char *name) {
  char key[24];
  snprintf(key, sizeof key, "\"%s\"", name);
  const char *at = strstr(json, key);
  if (at == nullptr) return "";
  at += strlen(key);
  while (*at == ' ' || *at == ':') at++;
  return at;
}

static void onCommand(const char *data, int length, bool retained) {
  char json[128];
  if (length >= (int)sizeof json) return;
  memcpy(json, data, length);
  json[length] = 0;
  if (json[0] != '{' || json[length - 1] != '}') return;
  float seconds = strtof(valueOf(json, "interval"), nullptr);
  if (seconds >= 0.01f && seconds <= 86400) intervalWanted = seconds;
  // a retained reboot would come again after every start
  if (strncmp(valueOf(json, "reboot"), "true", 4) == 0 && !retained) rebootWanted = true;
}

static void onMqtt(void *, esp_event_base_t, int32_t eventId, void *eventData) {
  esp_mqtt_event_handle_t event = (esp_mqtt_event_handle_t)eventData;
  if (eventId == MQTT_EVENT_CONNECTED) {
    justConnected = true;
  } else if (eventId == MQTT_EVENT_DATA && event->current_data_offset == 0 && event->data_len == event->total_data_len) {
    onCommand(event->data, event->data_len, event->retain);
  }
}

static void connectMqtt() {
  static esp_mqtt_client_config_t config = {};
  config.broker.address.uri = MQTT_URL;
#ifdef MQTT_CA
  config.broker.verification.certificate = MQTT_CA;  // with mqtts://
#endif
  config.credentials.client_id = id;
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
  snprintf(cmdTopic, sizeof cmdTopic, "sensors/%s/cmd", id);

  memory.begin("sensor", false);
  boot = memory.getUInt("boot", 0) + 1;
  memory.putUInt("boot", boot);
  intervalSeconds = memory.getFloat("interval", intervalSeconds);

  Wire.begin(SDA_PIN, SCL_PIN);
  sensorFound = bme.begin(0x76, &Wire);

  WiFi.mode(WIFI_STA);
  WiFi.setAutoReconnect(true);
  WiFi.begin(WIFI_SSID, WIFI_PASSWORD);
  configTime(0, 0, "pool.ntp.org");
  connectMqtt();
  Serial.printf("%s: boot %u\n", id, (unsigned)boot);
}

void loop() {
  if (justConnected) {
    justConnected = false;
    esp_mqtt_client_subscribe(mqtt, cmdTopic, 1);
    esp_mqtt_client_enqueue(mqtt, statusTopic, "online", 0, 1, true, true);
    describe();
  }
  if (intervalWanted > 0) {
    intervalSeconds = intervalWanted;
    intervalWanted = 0;
    memory.putFloat("interval", intervalSeconds);
    describe();
  }
  if (rebootWanted) {
    esp_mqtt_client_publish(mqtt, statusTopic, "offline", 0, 1, true);
    esp_mqtt_client_stop(mqtt);
    ESP.restart();
  }
  if (!sensorFound && millis() - lastTry > 10000) {
    lastTry = millis();
    sensorFound = bme.begin(0x76, &Wire);
    if (sensorFound) describe();
  }
  if (seq == 0 || millis() - lastReading >= (uint32_t)(intervalSeconds * 1000)) {
    lastReading = millis();
    measure();
  }
  delay(10);
}
