/* Tells the service manager how the server is (sd_notify(3)), when one listens: NOTIFY_SOCKET. */
#pragma once

/* "READY=1", "RELOADING=1", "STOPPING=1". Best effort: nobody may be listening. */
void notify_manager(const char *state);
