// Copy to secrets.h and fill in. git ignores secrets.h.
#pragma once

#define WIFI_SSID "…"
#define WIFI_PASSWORD "…"
#define AP_PASSWORD "…"  // of its access point, 8 to 63 characters; without this line it opens none

#define MQTT_URL "mqtt://192.168.1.10"  // mqtts:// for TLS
#define MQTT_USERNAME nullptr           // or "name"
#define MQTT_PASSWORD nullptr           // or "password"

// With mqtts://, the certificate of the authority:
// #define MQTT_CA "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n"
