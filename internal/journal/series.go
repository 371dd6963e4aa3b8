package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// closedFile is one that a journal went on from: it has the records first to last, and
// is never written again.
type closedFile struct {
	path        string
	first, last uint64
}

// closedName is that of the file with the records first to last. Twelve digits let a
// listing be in their order; there may be more.
func closedName(path string, first, last uint64) string {
	ext := filepath.Ext(path)
	return fmt.Sprintf("%s-%012d-%012d%s", strings.TrimSuffix(path, ext), first, last, ext)
}

// closedFiles are those beside path, the oldest first.
func closedFiles(path string) ([]closedFile, error) {
	dir, ext := filepath.Dir(path), filepath.Ext(path)
	stem := strings.TrimSuffix(filepath.Base(path), ext) + "-"
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []closedFile
	for _, e := range entries {
		numbers, ok := strings.CutPrefix(e.Name(), stem)
		numbers, ok2 := strings.CutSuffix(numbers, ext)
		a, b, ok3 := strings.Cut(numbers, "-")
		if !ok || !ok2 || !ok3 {
			continue
		}
		f := closedFile{path: filepath.Join(dir, e.Name())}
		var err error
		if f.first, err = strconv.ParseUint(a, 10, 64); err != nil {
			continue
		}
		if f.last, err = strconv.ParseUint(b, 10, 64); err != nil {
			continue
		}
		if filepath.Base(closedName(path, f.first, f.last)) == e.Name() {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b closedFile) int { return cmp.Or(cmp.Compare(a.last, b.last), cmp.Compare(a.first, b.first)) })
	return list, nil
}

// closedAt is the closed file whose last record is last.
func closedAt(path string, last uint64) (f closedFile, ok bool, err error) {
	list, err := closedFiles(path)
	for _, f := range list {
		if f.last == last {
			return f, true, err
		}
	}
	return f, false, err
}
