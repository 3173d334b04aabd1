// The life of the board: five minutes, with a command every ten seconds. What it does stands in the functions that
// lambdas.py makes of the configuration.
int main() {
  on_boot();
  on_wifi();
  for (int connects = getenv("CONNECTS") ? atoi(getenv("CONNECTS")) : 1; connects > 0; connects--) {
    mqtt_client.connected = true;
    birth();
    on_connect();
    if (connects > 1) mqtt_client.connected = false;
  }
  ESP_LOGI("wifi", "joined");
  ESP_LOGD("main", "detail");
  char line[512];
  for (int number = 0; now_ms < 300000; number++) {
    if (getenv("BREAKS") && number == 5) setenv("NO_BME280", "1", 1);
    measure.execute();
    if (fgets(line, sizeof line, stdin)) {
      if (line[0] == 'L') {
        ESP_LOGI("main", "%s", std::string(line + 1, strcspn(line + 1, "\n")).c_str());
        continue;
      }
      Value command;
      if (Value::parse(line, command)) on_command(command);
    }
  }
  on_interval();
}
