# what is built from systemd
