package interpret

import (
	"encoding/hex"
	"testing"
)

// The binary forms are what PostgreSQL's own send functions give, as in: select encode(numeric_send(12345.678), 'hex').
func TestDecode(t *testing.T) {
	tests := []struct {
		oid  uint32
		hex  string
		want string
	}{
		{oidBool, "01", "true"},
		{oidInt2, "ff85", "-123"},
		{oidInt4, "80000000", "-2147483648"},
		{oidInt8, "7fffffffffffffff", "9223372036854775807"},
		{oidOid, "ffffffff", "4294967295"},
		{oidFloat4, "3fc00000", "1.5"},
		{oidFloat8, "bfb999999999999a", "-0.1"},
		{oidText, "68c3a9", "hé"},
		{oidJSONB, "017b7d", "{}"},
		{oidUUID, "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{oidDate, "00002642", "2026-10-25"},
		{oidDate, "7fffffff", "infinity"},
		{oidTime, "00000000d69b4520", "01:00:00.5"},
		{oidTimestamp, "0002b710f21dfc00", "2024-03-20 07:02:42.832384"},
		{oidTimestamp, "ffc7225ceade1090", "1492-10-12 00:00:00.25"},
		{oidTimestamptz, "fffffffffff85ee0", "1999-12-31 23:59:59.5+00"},
		{oidTimestamptz, "8000000000000000", "-infinity"},
		{oidNumeric, "0003000100000003000109291a7c", "12345.678"},
		{oidNumeric, "0001ffff400000020064", "-0.01"},
		{oidNumeric, "0000000000000000", "0"},
		{oidNumeric, "0000000000000002", "0.00"},
		{oidNumeric, "0001000200000000000a", "1000000000"},
		{oidNumeric, "00000000c0000000", "NaN"},
		{oidNumeric, "00000000d0000020", "infinity"},
		{oidNumeric, "0001fffe00000008007b", "0.00000123"},
		{oidNumeric, "000700050000000404d2162e23340d801ed204d21388", "123456789012345678901234.5000"},
	}
	for _, test := range tests {
		b, err := hex.DecodeString(test.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := decode(b, test.oid); !ok || got != test.want {
			t.Errorf("type %d, %s: got %q, %v; want %q", test.oid, test.hex, got, ok, test.want)
		}
		if _, ok := decode(append(b, 0), test.oid); ok && test.oid != oidText && test.oid != oidJSONB {
			t.Errorf("type %d: a byte too many was taken", test.oid)
		}
	}
}
