#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <string>
using std::max;
using std::min;

typedef std::string String;

uint32_t millis();
void delay(uint32_t milliseconds);
void configTime(long gmtOffset, int daylightOffset, const char *server1, const char *server2 = nullptr, const char *server3 = nullptr);

struct HardwareSerial {
  void begin(unsigned long) {}
  template <typename... Values>
  void printf(const char *format, Values... values) {
    fprintf(stderr, format, values...);
  }
};
extern HardwareSerial Serial;

struct EspClass {
  uint64_t getEfuseMac();
  void restart();
  uint32_t getHeapSize() { return 300000; }
  uint32_t getFreeHeap() { return 200000; }
};
extern EspClass ESP;
