// An upstream that costs almost nothing: fixed answers of the OpenAI chat API.
//
// A request gets a fixed completion of 300 bytes; with "logprobs":true in its body, one with as
// many token logprobs as its max_tokens says (also ?max_tokens= or x-max-tokens); with
// "stream":true, 64 chunks. The second argument is a pause between chunks, such as 10ms.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

const chunks = 64

var fixed = []byte(`{"id":"chatcmpl-1","object":"chat.completion","created":1795322703,"model":"tiny","choices":[{"index":0,"message":{"role":"assistant","content":"Hello! How can I help you today? I am a small model and I am quick."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"total_tokens":30,"completion_tokens":18}}`)

var (
	wantsStream   = regexp.MustCompile(`"stream":\s*true`)
	wantsLogprobs = regexp.MustCompile(`"logprobs":\s*true`)
	wantsTokens   = regexp.MustCompile(`"max_(?:completion_)?tokens":\s*(\d+)`)
	known         sync.Map
)

func tokens(r *http.Request, body []byte) int {
	text := r.URL.Query().Get("max_tokens")
	if text == "" {
		text = r.Header.Get("x-max-tokens")
	}
	if text == "" {
		if found := wantsTokens.FindSubmatch(body); found != nil {
			text = string(found[1])
		}
	}
	count, err := strconv.Atoi(text)
	if err != nil || count < 1 || count > 4096 {
		return 16
	}
	return count
}

func withLogprobs(count int) []byte {
	if answer, ok := known.Load(count); ok {
		return answer.([]byte)
	}
	type place struct {
		Token   string  `json:"token"`
		Logprob float64 `json:"logprob"`
		Bytes   []int   `json:"bytes"`
		Top     []any   `json:"top_logprobs"`
	}
	places := make([]place, count)
	words := make([]string, count)
	for i := range places {
		words[i] = fmt.Sprintf("tok%d ", i)
		spelled := make([]int, len(words[i]))
		for at, letter := range []byte(words[i]) {
			spelled[at] = int(letter)
		}
		places[i] = place{words[i], -0.001 * float64(1+i%997), spelled, []any{}}
	}
	answer, _ := json.Marshal(map[string]any{
		"id": "chatcmpl-1", "object": "chat.completion", "created": 1795322703, "model": "tiny",
		"choices": []any{map[string]any{
			"index": 0, "finish_reason": "stop",
			"message":  map[string]any{"role": "assistant", "content": strings.Join(words, "")},
			"logprobs": map[string]any{"content": places},
		}},
		"usage": map[string]int{"prompt_tokens": 12, "total_tokens": 12 + count, "completion_tokens": count},
	})
	known.Store(count, answer)
	return answer
}

func stream(w http.ResponseWriter, pause time.Duration) {
	w.Header().Set("content-type", "text/event-stream")
	flusher := w.(http.Flusher)
	for i := 0; i < chunks; i++ {
		fmt.Fprintf(w, `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795322703,"model":"tiny","choices":[{"index":0,"delta":{"content":"tok%d "},"finish_reason":null}]}`+"\n\n", i)
		flusher.Flush()
		if pause > 0 {
			time.Sleep(pause)
		}
	}
	io.WriteString(w, "data: [DONE]\n\n")
}

func main() {
	pause := time.Duration(0)
	if len(os.Args) > 2 {
		pause, _ = time.ParseDuration(os.Args[2])
	}
	http.HandleFunc("/v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte(`"stream"`)) && wantsStream.Match(body) {
			stream(w, pause)
			return
		}
		w.Header().Set("content-type", "application/json")
		if bytes.Contains(body, []byte(`"logprobs"`)) && wantsLogprobs.Match(body) {
			w.Write(withLogprobs(tokens(r, body)))
			return
		}
		w.Write(fixed)
	})
	http.HandleFunc("/v1/models", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("content-type", "application/json")
		io.WriteString(w, `{"object":"list","data":[{"id":"tiny","object":"model","created":1,"owned_by":"mock"}]}`)
	})
	http.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) })
	if err := http.ListenAndServe(os.Args[1], nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
