"""Stand-in for `esp32`: NVS in a file."""

import json


class NVS:
    def __init__(self, namespace):
        self.file = "nvs-" + namespace
        try:
            with open(self.file) as file:
                self.values = json.load(file)
        except OSError:
            self.values = {}

    def get_i32(self, key):
        if key not in self.values:
            raise OSError(-4354, "ESP_ERR_NVS_NOT_FOUND")
        return self.values[key]

    def set_i32(self, key, value):
        self.values[key] = value

    def erase_key(self, key):
        self.get_i32(key)
        del self.values[key]

    def commit(self):
        with open(self.file, "w") as file:
            json.dump(self.values, file)
