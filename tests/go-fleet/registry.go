// Takes the place of the Go satellite's embedded zot, which not every module proxy serves: the same
// address and directory, served by Debian's docker-registry. What decides what is replicated, asked
// and reported is unchanged.
package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"

	"github.com/rs/zerolog"
)

type ZotManager struct {
	zotConfig    json.RawMessage
	tempConfPath string
	log          zerolog.Logger
}

func NewZotManager(log zerolog.Logger, zotConfig json.RawMessage, tempConfPath string) *ZotManager {
	return &ZotManager{zotConfig: zotConfig, tempConfPath: tempConfPath, log: log}
}

func (zm *ZotManager) HandleRegistrySetup(ctx context.Context) error {
	var zot ZotConfig
	if err := json.Unmarshal(zm.zotConfig, &zot); err != nil {
		return fmt.Errorf("zot config: %w", err)
	}
	text := fmt.Sprintf(
		"version: 0.1\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp: {addr: %q}\n",
		zot.Storage.RootDirectory, zot.HTTP.Address+":"+zot.HTTP.Port)
	if err := os.WriteFile(zm.tempConfPath, []byte(text), 0o600); err != nil {
		return fmt.Errorf("registry configuration: %w", err)
	}
	return exec.CommandContext(ctx, "docker-registry", "serve", zm.tempConfPath).Run()
}
