package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// contentTypes are what the handlers speak, and what they do not.
var contentTypes = []string{
	"application/json", "application/proto", "application/connect+json", "application/connect+proto", "application/grpc", "application/grpc+json",
	"application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "text/plain", "", "multipart/form-data; boundary=x",
}

// methods are the service's calls.
func methods() (list []string) {
	all := v1.File_maxwell_v1_market_proto.Services().Get(0).Methods()
	for i := range all.Len() {
		list = append(list, string(all.Get(i).Name()))
	}
	return list
}

// envelope puts a message in a frame of a stream.
func envelope(flags byte, length uint32, body []byte) []byte {
	head := append([]byte{flags}, binary.BigEndian.AppendUint32(nil, length)...)
	return append(head, body...)
}

// FuzzRequests sends a user's requests of every kind, whole and broken, to a market
// in this process (a panic in a call ends it) and asks it afterwards how it is.
func FuzzRequests(f *testing.F) {
	h := hostMarket(f)
	root := h.as(0)
	client := func(version2 bool) *http.Client {
		tr := &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return hosttest.DialAs(1001, h.socket) },
			Protocols:   new(http.Protocols),
		}
		tr.Protocols.SetHTTP1(!version2)
		tr.Protocols.SetUnencryptedHTTP2(version2)
		f.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	clients := []*http.Client{client(false), client(true)}
	verbs := methods()
	token := h.session(h.as(1001))
	raw, err := proto.Marshal(&v1.AdmitRequest{Token: token, Name: "x", BudgetUcredits: 1e9})
	if err != nil {
		f.Fatal(err)
	}
	for i := range verbs {
		f.Add(byte(i), byte(0), byte(0), "", []byte(`{"token":"`+token+`","name":"x"}`))
		f.Add(byte(i), byte(1), byte(1), "", raw)
		f.Add(byte(i), byte(2), byte(0), "", envelope(0, 2, []byte("{}")))
		f.Add(byte(i), byte(4), byte(3), "", envelope(0, 1<<31, raw))
		f.Add(byte(i), byte(6), byte(1), "", envelope(1, uint32(len(raw)), raw))
	}
	f.Add(byte(0), byte(0), byte(2), "../../", []byte("\x00\xff"))
	f.Add(byte(4), byte(0), byte(0), "", []byte(`{"name":"\u0000","amountUcredits":"9223372036854775807"}`))
	f.Add(byte(1), byte(0), byte(0), "", []byte(`{"token":"`+token+`","name":"y","budgetUcredits":"9223372036854775807","coresMilli":"9223372036854775807","horizonNs":"9223372036854775807","rateUcreditsPerS":"9223372036854775807"}`))
	f.Fuzz(func(t *testing.T, verb, kind, how byte, path string, body []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		method := http.MethodPost
		if how&2 != 0 {
			method = http.MethodGet
		}
		req, err := http.NewRequestWithContext(ctx, method, "http://market/maxwell.v1.MarketService/"+verbs[int(verb)%len(verbs)], bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Path += path
		req.Header.Set("Content-Type", contentTypes[int(kind)%len(contentTypes)])
		if how&4 != 0 {
			req.Header.Set("Content-Encoding", "gzip")
			req.Header.Set("Connect-Content-Encoding", "gzip")
			req.Header.Set("Grpc-Encoding", "gzip")
		}
		if how&8 != 0 {
			req.Header.Set("Connect-Timeout-Ms", path)
			req.Header.Set("Grpc-Timeout", path)
		}
		if r, err := clients[how&1].Do(req); err == nil { // a call may well wait for its end
			_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
			_ = r.Body.Close()
		}
		snap, err := root.Snapshot(t.Context(), &v1.SnapshotRequest{})
		if err != nil {
			t.Fatalf("the market does not answer: %v", err)
		}
		if sum := snap.GetSnapshot().GetLedger().GetSumUcredits(); sum != 0 {
			t.Fatalf("the books sum to %d", sum)
		}
	})
}
