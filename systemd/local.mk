# How the service is run, and the configuration that an administrator begins with.
dist_systemdsystemunit_DATA = systemd/dmabroker.socket
nodist_systemdsystemunit_DATA = systemd/dmabroker.service

# systemd before 253 knows no notify-reload: there the signal is sent by a command, and nobody waits until it is heard.
if NOTIFY_RELOAD
service_type = Type=notify-reload
else
service_type = Type=notify
reload_command = ExecReload=/bin/kill -HUP $$MAINPID
endif

systemd/dmabroker.service: systemd/dmabroker.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) systemd && $(SED) -e 's|@service_type[@]|$(service_type)|' \
		-e 's|@reload_command[@]|$(reload_command)|' -e 's|@sbindir[@]|$(sbindir)|g' $(srcdir)/systemd/dmabroker.service.in >$@.tmp && mv $@.tmp $@

CLEANFILES += systemd/dmabroker.service

# The names differ between source tree and installation, which automake has no word for.
EXTRA_DIST += systemd/dmabroker.service.in systemd/dmabroker.sysusers systemd/dmabroker.tmpfiles systemd/dmabroker.conf

install-data-local:
	$(MKDIR_P) "$(DESTDIR)$(sysusersdir)" "$(DESTDIR)$(tmpfilesdir)" "$(DESTDIR)$(sysconfdir)/dmabroker"
	$(INSTALL_DATA) $(srcdir)/systemd/dmabroker.sysusers "$(DESTDIR)$(sysusersdir)/dmabroker.conf"
	$(INSTALL_DATA) $(srcdir)/systemd/dmabroker.tmpfiles "$(DESTDIR)$(tmpfilesdir)/dmabroker.conf"
	test -e "$(DESTDIR)$(sysconfdir)/dmabroker/dmabroker.conf" || \
		$(INSTALL_DATA) $(srcdir)/systemd/dmabroker.conf "$(DESTDIR)$(sysconfdir)/dmabroker/dmabroker.conf"

# What an administrator has changed stays.
uninstall-local:
	rm -f "$(DESTDIR)$(sysusersdir)/dmabroker.conf" "$(DESTDIR)$(tmpfilesdir)/dmabroker.conf"
	if cmp -s $(srcdir)/systemd/dmabroker.conf "$(DESTDIR)$(sysconfdir)/dmabroker/dmabroker.conf"; then \
		rm -f "$(DESTDIR)$(sysconfdir)/dmabroker/dmabroker.conf"; \
	fi
