/etc/ocpp-tunnel/
