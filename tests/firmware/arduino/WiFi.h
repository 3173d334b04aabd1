#pragma once
#include "Arduino.h"
enum wifi_mode_t { WIFI_STA = 1, WIFI_AP_STA = 3 };
struct IPAddress {
  String toString() const { return "192.168.4.1"; }
};
// Joins the network that the environment names, `home` where it names none.
struct WiFiClass {
  bool mode(wifi_mode_t) { return true; }
  bool setAutoReconnect(bool) { return true; }
  int begin(const char *name, const char *password) {
    printf("JOIN\t0\t0\t%s %s\n", name, password);
    wanted = name;
    return 0;
  }
  bool disconnect() {
    wanted = "";
    return true;
  }
  bool isConnected() { return wanted == (getenv("NETWORK") ? getenv("NETWORK") : "home"); }
  int8_t RSSI() { return -61; }
  bool softAP(const char *name, const char *password) {
    printf("AP\t1\t0\t%s %s\n", name, password);
    return true;
  }
  bool softAPdisconnect(bool) {
    printf("AP\t0\t0\t\n");
    return true;
  }
  IPAddress softAPIP() { return IPAddress(); }
  uint8_t softAPgetStationNum() { return getenv("CONNECTED") ? 1 : 0; }
  String wanted;
};
extern WiFiClass WiFi;
