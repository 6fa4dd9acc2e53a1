package config

import (
	"errors"
	"os"
	"path/filepath"
)

// consumeQueueEntrySize is the size of one ConsumeQueue entry, to which the files' size is rounded.
const consumeQueueEntrySize = 20

// DefaultBroker returns the values in force without any configuration.
func DefaultBroker() *Broker {
	b := new(Broker)
	mustSetDefaults(b)
	if err := b.settle(); err != nil {
		panic("BUG: default broker configuration: " + err.Error())
	}
	return b
}

// BrokerKeys returns the table behind [Broker], in the order of its fields.
func BrokerKeys() []Key { return keysOf(new(Broker)) }

// LoadBroker builds a broker's configuration.
func LoadBroker(src Source) (*Live[Broker], error) {
	return load(src, "broker", (*Broker).settle, nil)
}

// settle fills in automatic values and checks values against each other. It is applied to every snapshot, and
// applied to its own result it changes nothing.
func (b *Broker) settle() error {
	if err := b.checkRole(); err != nil {
		return err
	}
	b.settleIdentity()
	if b.FastListenPort == 0 && b.ListenPort > 2 {
		b.FastListenPort = b.ListenPort - 2
	}
	if b.HaListenPort == 0 && b.ListenPort > 0 && b.ListenPort < 65535 {
		b.HaListenPort = b.ListenPort + 1
	}
	if b.StorePathCommitLog == "" {
		b.StorePathCommitLog = filepath.Join(b.StorePathRootDir, "commitlog")
	}
	if rest := b.MappedFileSizeConsumeQueue % consumeQueueEntrySize; rest != 0 {
		b.MappedFileSizeConsumeQueue += consumeQueueEntrySize - rest
	}
	return b.checkSizes()
}

func (b *Broker) settleIdentity() {
	if b.BrokerName == "" {
		b.BrokerName = hostName()
	}
	if b.BrokerIP1 == "" {
		b.BrokerIP1 = localAddress()
	}
	if b.BrokerIP2 == "" {
		b.BrokerIP2 = b.BrokerIP1
	}
	b.BrokerID = 0 // the roles accepted by checkRole are masters
}

// checkRole refuses what would promise copies that nobody makes.
func (b *Broker) checkRole() error {
	if b.BrokerRole == Slave {
		return errors.New("brokerRole=SLAVE needs replication, which this version does not have: use ASYNC_MASTER or SYNC_MASTER")
	}
	if b.BrokerRole == SyncMaster && b.InSyncReplicas > 1 {
		return errors.New("inSyncReplicas above 1 with brokerRole=SYNC_MASTER needs replication, which this version does not have: use inSyncReplicas=1")
	}
	return nil
}

func (b *Broker) checkSizes() error {
	if b.MaxMessageSize >= b.FrameMaxLength {
		return errors.New("maxMessageSize must be less than frameMaxLength, or no such message could be received: lower the one or raise the other")
	}
	return nil
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil || !validName(name) {
		return "DEFAULT_BROKER"
	}
	return name
}

// ValueOf is the text of one property of a *Broker or *NameServer; ok is false where it has none of that name.
func ValueOf(snapshot any, name string) (text string, ok bool) {
	for _, k := range keysOf(snapshot) {
		if k.Name == name {
			return k.text(snapshot), true
		}
	}
	return "", false
}
