#include "Arduino.h"

#include SKETCH

#include <poll.h>
#include <unistd.h>

HardwareSerial Serial;
EspClass ESP;
TwoWire Wire;
WiFiClass WiFi;

static uint32_t now;
static esp_event_handler_t handler;

uint32_t millis() { return now; }
void delay(uint32_t milliseconds) { now += milliseconds; }
void configTime(long, int, const char *, const char *, const char *) {}
uint64_t EspClass::getEfuseMac() { return 0x563412c40a24; }
void EspClass::restart() { exit(17); }
esp_reset_reason_t esp_reset_reason() { return getenv("RESET_REASON") ? (esp_reset_reason_t)atoi(getenv("RESET_REASON")) : ESP_RST_POWERON; }
int64_t esp_timer_get_time() { return now * 1000LL; }

esp_mqtt_client_handle_t esp_mqtt_client_init(const esp_mqtt_client_config_t *config) {
  printf("CLIENT\t0\t0\t%s\n", config->credentials.client_id);
  printf("WILL\t%d\t%d\t%s %s\n", config->session.last_will.qos, config->session.last_will.retain,
         config->session.last_will.topic, config->session.last_will.msg);
  return nullptr;
}
esp_err_t esp_mqtt_client_register_event(esp_mqtt_client_handle_t, esp_mqtt_event_id_t, esp_event_handler_t callback, void *) {
  handler = callback;
  return 0;
}
esp_err_t esp_mqtt_client_start(esp_mqtt_client_handle_t) { return 0; }
esp_err_t esp_mqtt_client_stop(esp_mqtt_client_handle_t) { return 0; }
int esp_mqtt_client_subscribe_single(esp_mqtt_client_handle_t, const char *topic, int qos) {
  printf("SUBSCRIBE\t%d\t0\t%s\n", qos, topic);
  return 1;
}
int esp_mqtt_client_publish(esp_mqtt_client_handle_t, const char *topic, const char *data, int length, int qos, int retain) {
  if (getenv("OUTBOX_FULL") && strstr(topic, "/state")) return -2;
  printf("%s\t%d\t%d\t%.*s\n", topic, qos, retain, length ? length : (int)strlen(data), data);
  return 1;
}
int esp_mqtt_client_enqueue(esp_mqtt_client_handle_t client, const char *topic, const char *data, int length, int qos, int retain, bool) {
  return esp_mqtt_client_publish(client, topic, data, length, qos, retain);
}

// What somebody asks of the page: `W`, GET or POST, host, path, and the form's fields, with blanks between.
void WebServer::handleClient() {
  char line[512];
  if (now % 10000 != 0 || !fgets(line, sizeof line, stdin)) return;
  arguments.clear();
  char *word = strtok(line + 1, " \n");
  HTTPMethod method = strcmp(word, "POST") == 0 ? HTTP_POST : HTTP_GET;
  host = strtok(nullptr, " \n");
  String path = strtok(nullptr, " \n");
  while ((word = strtok(nullptr, " \n"))) {
    const char *value = strchr(word, '=');
    arguments[String(word, value - word)] = value + 1;
  }
  ask(method, path);
}

int main() {
  setup();
  for (int connects = getenv("CONNECTS") ? atoi(getenv("CONNECTS")) : 1; connects > 0; connects--) {
    handler(nullptr, "MQTT", MQTT_EVENT_CONNECTED, nullptr);
    loop();
  }
  char line[512];
  // five minutes on the sketch's clock, or as many as are wanted; a command every ten seconds while there is a network
  const uint32_t end = (getenv("MINUTES") ? atoi(getenv("MINUTES")) : 5) * 60000;
  while (now < end) {
    if (now % 10000 == 5000 && WiFi.isConnected() && fgets(line, sizeof line, stdin)) {
      bool retained = line[0] == 'R';
      esp_mqtt_event_t event = {};
      event.data = line + retained;
      event.data_len = event.total_data_len = (int)strcspn(event.data, "\n");
      event.retain = retained;
      handler(nullptr, "MQTT", MQTT_EVENT_DATA, &event);
    }
    loop();
  }
}
