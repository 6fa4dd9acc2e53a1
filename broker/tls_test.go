package broker

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
)

func TestTLSOfConfiguration(t *testing.T) {
	for _, tt := range []struct {
		rule     string
		c        config.TLS
		mode     netpath.TLSMode
		serves   bool
		fails    string
		mustSay  string
		mustHide string
	}{
		{"disabled reads no file", config.TLS{TLSServerMode: "disabled", TLSServerKeyPath: "/none", TLSServerCertPath: "/none"}, netpath.TLSDisabled, false, "", "", ""},
		{"permissive in test mode", config.TLS{TLSServerMode: "permissive", TLSTestModeEnable: true}, netpath.TLSPermissive, true, "", "TLS test mode", ""},
		{"enforcing in test mode", config.TLS{TLSServerMode: "enforcing", TLSTestModeEnable: true}, netpath.TLSEnforcing, true, "", "TLS test mode", ""},
		{"permissive without a certificate", config.TLS{TLSServerMode: "permissive"}, netpath.TLSDisabled, false, "", "set tls.server.certPath", ""},
		{"enforcing without a certificate", config.TLS{TLSServerMode: "enforcing"}, 0, false, "set tls.server.certPath", "", ""},
		{"permissive with a certificate that is not there", config.TLS{TLSServerMode: "permissive", TLSServerKeyPath: "/none/k", TLSServerCertPath: "/none/c"}, 0, false, "/none/k", "", ""},
		{"authorities are needed to check clients", config.TLS{TLSServerMode: "permissive", TLSTestModeEnable: true, TLSServerNeedClientAuth: "require", TLSServerAuthClient: true},
			0, false, "set tls.server.trustCertPath", "", ""},
		{"a check of clients that are not asked", config.TLS{TLSServerMode: "permissive", TLSTestModeEnable: true, TLSServerNeedClientAuth: "none", TLSServerAuthClient: true},
			netpath.TLSPermissive, true, "", "has no effect", ""},
		{"any client certificate", config.TLS{TLSServerMode: "permissive", TLSTestModeEnable: true, TLSServerNeedClientAuth: "require", TLSServerTrustCertPath: "/none"},
			netpath.TLSPermissive, true, "", "but any is taken", ""},
		{"authorities that are not there", config.TLS{TLSServerMode: "permissive", TLSTestModeEnable: true, TLSServerNeedClientAuth: "require", TLSServerAuthClient: true,
			TLSServerTrustCertPath: "/none/ca"}, 0, false, "/none/ca", "", ""},
		{"a password stays out of the log", config.TLS{TLSServerMode: "enforcing", TLSServerKeyPath: "tls.go", TLSServerCertPath: "tls.go", TLSServerKeyPassword: "hush"},
			0, false, "no private key", "", "hush"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			var said bytes.Buffer
			mode, loaded, err := serverTLS(&tt.c, slog.New(slog.NewTextHandler(&said, nil)))
			require.Contains(t, said.String(), tt.mustSay)
			if tt.fails != "" {
				require.ErrorContains(t, err, tt.fails)
				if tt.mustHide != "" {
					require.NotContains(t, said.String()+err.Error(), tt.mustHide)
				}
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.mode, mode)
			require.Equal(t, tt.serves, loaded != nil)
		})
	}
}

// By default a broker serves plain and TLS connections on one port.
func TestBrokerServesTLSByDefault(t *testing.T) {
	b := metricsBroker(t)
	b.Start()
	for _, config := range []*tls.Config{nil, {InsecureSkipVerify: true}} {
		c, err := client.Dial(t.Context(), b.Addr(), client.Options{TLS: config})
		require.NoError(t, err)
		r, err := c.Invoke(t.Context(), client.Request{Code: remoting.ReqGetMaxOffset, Fields: map[string]string{"topic": "BenchmarkTest", "queueId": "0"}})
		require.NoError(t, err)
		require.NoError(t, r.Err())
		require.NoError(t, c.Close())
	}
}
