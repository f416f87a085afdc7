#!/bin/sh
# Starts Mosquitto with passwords from secrets: one file for each user, whose first line is the password.
# The password file holds only hashes, lies in memory (a tmpfs), and is made anew with each start.
set -eu
umask 077

secrets=${MOSQUITTO_SECRETS:-/run/secrets}
passwords=${MOSQUITTO_PASSWORDS:-/mosquitto/run/passwords}
configuration=${MOSQUITTO_CONFIGURATION:-/mosquitto/config/mosquitto.conf}

: > "$passwords"
for user in collect ingest serve reader; do
  file=$secrets/mqtt_$user
  password=
  if [ -r "$file" ]; then
    IFS= read -r password < "$file" || true # a file without an end of line is a password too
  fi
  if [ -z "$password" ]; then
    echo "start.sh: no password for the MQTT user $user: $file is missing, unreadable or empty; run deploy/make-secrets" >&2
    exit 1
  fi
  printf '%s:%s\n' "$user" "$password" >> "$passwords"
done
mosquitto_passwd -U "$passwords" # hashes the file in place

exec mosquitto -c "$configuration"
