#pragma once
#include <functional>
#include <map>

#include "Arduino.h"
enum HTTPMethod { HTTP_GET, HTTP_POST };
struct WebServer {
  typedef std::function<void()> THandlerFunction;
  explicit WebServer(int) {}
  void on(const char *path, HTTPMethod method, THandlerFunction handler) { handlers[{path, method}] = handler; }
  void onNotFound(THandlerFunction handler) { otherwise = handler; }
  void begin() {}
  void close() {}
  void handleClient();
  String hostHeader() { return host; }
  String arg(const String &name) { return arguments[name]; }
  void sendHeader(const String &, const String &value) { header = value; }
  void send(int status, const char *, const char *text) { printf("WEB\t%d\t0\t%s%s\n", status, header.c_str(), text); }

  // how host.cpp asks
  void ask(HTTPMethod method, const String &path) {
    header = "";
    auto found = handlers.find({path, method});
    found == handlers.end() ? otherwise() : found->second();
  }
  String host, header;
  std::map<String, String> arguments;
  std::map<std::pair<String, HTTPMethod>, THandlerFunction> handlers;
  THandlerFunction otherwise;
};
