package broker

import (
	"crypto/tls"
	"log/slog"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/netpath"
)

func tlsOf(*config.TLS, *slog.Logger) (netpath.TLSMode, *tls.Config, error) {
	return netpath.TLSDisabled, nil, nil
}
