#pragma once
#include <stdint.h>
enum wifi_mode_t { WIFI_STA = 1 };
struct WiFiClass {
  bool mode(wifi_mode_t) { return true; }
  bool setAutoReconnect(bool) { return true; }
  int begin(const char *, const char *) { return 0; }
  bool isConnected() { return true; }
  int8_t RSSI() { return -61; }
};
extern WiFiClass WiFi;
