#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../arduino/esp_system.h"

// -- JSON

class Value {
 public:
  struct Key {
    const std::string &name;
    const char *c_str() const { return name.c_str(); }
  };
  struct Pair {
    const std::pair<std::string, Value> &of;
    Key key() const { return Key{of.first}; }
    const Value &value() const { return of.second; }
  };
  struct Iterator {
    const std::pair<std::string, Value> *at;
    Pair operator*() const { return Pair{*at}; }
    void operator++() { at++; }
    bool operator!=(const Iterator &other) const { return at != other.at; }
  };
  Iterator begin() const { return Iterator{members_.data()}; }
  Iterator end() const { return Iterator{members_.data() + members_.size()}; }
  size_t size() const { return members_.size(); }

  Value &operator[](const char *name) {
    kind_ = OBJECT;
    for (auto &member : members_)
      if (member.first == name) return member.second;
    members_.emplace_back(name, Value());
    return members_.back().second;
  }
  Value &operator[](int index) {
    kind_ = ARRAY;
    if (index == (int)members_.size()) members_.emplace_back("", Value());
    return members_.at(index).second;
  }
  template <typename T>
  void operator=(const T &value) {
    char text[40];
    if constexpr (std::is_same_v<T, bool>) {
      kind_ = BOOL;
      text_ = value ? "true" : "false";
    } else if constexpr (std::is_arithmetic_v<T>) {
      kind_ = NUMBER;
      if (std::is_integral_v<T>) snprintf(text, sizeof text, "%lld", (long long)value);
      else snprintf(text, sizeof text, std::is_same_v<T, float> ? "%.7g" : "%.14g", (double)value);
      text_ = text;
    } else {
      kind_ = TEXT;
      text_ = value;
    }
  }
  template <typename T>
  bool is() const {
    if (std::is_same_v<T, bool>) return kind_ == BOOL;
    return std::is_arithmetic_v<T> ? kind_ == NUMBER : kind_ == TEXT;
  }
  template <typename T>
  T as() const {
    if constexpr (std::is_same_v<T, bool>) return text_ == "true";
    else if constexpr (std::is_arithmetic_v<T>) return (T)atof(text_.c_str());
    else return text_.c_str();
  }
  std::string dump() const {
    if (kind_ == NUMBER || kind_ == BOOL) return text_;
    if (kind_ == TEXT) return quoted(text_);
    std::string text = kind_ == ARRAY ? "[" : "{";
    for (auto &member : members_) {
      if (text.size() > 1) text += ",";
      if (kind_ == OBJECT) text += quoted(member.first) + ":";
      text += member.second.dump();
    }
    return text + (kind_ == ARRAY ? "]" : "}");
  }
  // A flat object of numbers, words and texts without escapes.
  static bool parse(const char *at, Value &into) {
    into.kind_ = OBJECT;
    if (*at++ != '{') return false;
    while (at = at + strspn(at, " ,"), *at == '"') {
      const char *end = strchr(++at, '"');
      Value &value = into[std::string(at, end).c_str()];
      at = end + 1 + strspn(end + 1, " :");
      value.kind_ = *at == '"' ? TEXT : *at == 't' || *at == 'f' ? BOOL : NUMBER;
      at += *at == '"';
      size_t length = strcspn(at, "\",}");
      value.text_ = std::string(at, length);
      at += length + (at[length] == '"');
    }
    return *at == '}';
  }

 private:
  enum Kind { OBJECT, ARRAY, NUMBER, BOOL, TEXT } kind_ = OBJECT;
  std::string text_;
  std::vector<std::pair<std::string, Value>> members_;

  static std::string quoted(const std::string &text) {
    std::string result = "\"";
    for (char c : text) {
      if (c == '"' || c == '\\') result += '\\';
      result += c;
    }
    return result + "\"";
  }
};

// -- the board

#define id(name) (name)
#define MALLOC_CAP_8BIT 4

static uint32_t now_ms = 1000;

static uint32_t millis() { return now_ms; }
static void delay(uint32_t milliseconds) { now_ms += milliseconds; }
static uint32_t esp_get_free_heap_size() { return 200000; }
static uint32_t esp_get_minimum_free_heap_size() { return 190000; }
static size_t heap_caps_get_total_size(int) { return 300000; }
esp_reset_reason_t esp_reset_reason() { return getenv("RESET_REASON") ? (esp_reset_reason_t)atoi(getenv("RESET_REASON")) : ESP_RST_POWERON; }
static uint32_t fnv1_hash(const char *) { return 1; }

struct Preference {
  void load(int *value) { *value = 6; }
  void save(const int *) {}
};
struct Preferences {
  template <typename T>
  Preference make_preference(uint32_t) { return Preference(); }
  void sync() {}
};
static Preferences preferences, *global_preferences = &preferences;

struct Application {
  void safe_reboot() { exit(17); }
};
static Application App;

struct Sensor {
  float state = NAN;
  bool known = false;
  bool has_state() const { return known; }
  void set(float value) { state = value, known = true; }
};
struct Time {
  time_t timestamp;
  bool is_valid() const { return getenv("CLOCK_UNSET") == nullptr; }
};
struct Clock {
  Time now() const { return Time{time(nullptr)}; }
};
struct Client {
  bool connected = false;
  bool is_connected() const { return connected; }
};
struct Script {
  void (*run)();
  void execute() { run(); }
  void stop() {}
};

// -- the broker

static Client mqtt_client;

static void publish(const char *topic, int qos, bool retain, const Value &payload) {
  if (mqtt_client.connected) printf("%s\t%d\t%d\t%s\n", topic, qos, retain, payload.dump().c_str());
}

static void on_log(uint8_t level, const char *tag, const char *message);

#define LOG(level, letter, tag, ...) \
  do { \
    char text_[400], line_[500]; \
    snprintf(text_, sizeof text_, __VA_ARGS__); \
    snprintf(line_, sizeof line_, "\033[0;32m[%c][%s:123]: %s\033[0m", letter, tag, text_); \
    on_log(level, tag, line_); \
  } while (0)
#define ESP_LOGW(tag, ...) LOG(2, 'W', tag, __VA_ARGS__)
#define ESP_LOGI(tag, ...) LOG(3, 'I', tag, __VA_ARGS__)
#define ESP_LOGD(tag, ...) LOG(5, 'D', tag, __VA_ARGS__)
