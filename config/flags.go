package config

// Flags are the properties given on the command line, by property name.
//
// A command registers one flag for each key and passes the map on in [Source]:
//
//	given := config.Flags{}
//	for _, k := range config.BrokerKeys() {
//		flagSet.Var(given.Value(k), k.Name, k.Usage())
//	}
type Flags map[string]string

// Value returns the flag for one key. It serves the standard library's flag.Value and the interface of the same
// name that pflag has; with pflag, a bool flag also needs NoOptDefVal = "true".
func (f Flags) Value(k Key) *FlagValue { return &FlagValue{flags: f, key: k} }

// FlagValue is the flag of one key.
type FlagValue struct {
	flags Flags
	key   Key
}

// Set checks the text and keeps it.
func (v *FlagValue) Set(text string) error {
	if err := v.key.Check(text); err != nil {
		return err
	}
	v.flags[v.key.Name] = text
	return nil
}

// String is the value given, or the default.
func (v *FlagValue) String() string {
	if v.flags == nil {
		return "" // the flag package prints a zero FlagValue to learn the zero default
	}
	if text, given := v.flags[v.key.Name]; given {
		return text
	}
	return v.key.Default
}

// Type names the kind of value in pflag's help text.
func (v *FlagValue) Type() string { return v.key.Kind }

// IsBoolFlag lets the flag package accept --name without a value.
func (v *FlagValue) IsBoolFlag() bool { return v.key.Kind == "bool" }
