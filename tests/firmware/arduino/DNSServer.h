#pragma once
#include "WiFi.h"
struct DNSServer {
  bool start(uint16_t port, const String &name, const IPAddress &address) {
    printf("DNS\t%d\t0\t%s %s\n", port, name.c_str(), address.toString().c_str());
    return true;
  }
  void processNextRequest() {}
  void stop() {}
};
