//! The files in `boards/`: that each resolves and is of use, and that mistakes in one are found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../src/build/boards.rs"]
mod boards;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use moonlet::blob::Store;
use moonlet::config;
use moonlet::flash::Geometry;
use moonlet::flash::sim::Device;
use moonlet::metrics::Metrics;

/// Exit code, standard output, standard error.
fn moonlet(words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moonlet"));
    // Nothing of this needs a configuration.
    let output = command.args(words).env("MOONLET_CONFIG", "/nowhere").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn printed(words: &[&str]) -> String {
    let (code, out, err) = moonlet(words);
    assert!(code == 0 && err.is_empty(), "{words:?}: {err}");
    out
}

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("moonlet-boards-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).unwrap();
    path
}

#[test]
fn every_board_can_be_built_for_and_begun_with() {
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("boards")).unwrap();
    let names: Vec<String> = files
        .filter_map(|file| Some(file.unwrap().path().file_stem()?.to_str()?.to_owned()))
        .filter(|name| {
            let text = fs::read_to_string(format!("boards/{name}.toml"));
            text.is_ok_and(|text| text.contains("\nname = "))
        })
        .collect();
    assert!(names.len() > 9, "{names:?}");
    let list = printed(&["board", "ls"]);
    let directory = directory("configs");
    for name in &names {
        assert!(list.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}: {list}");
        let shown: serde_json::Value =
            serde_json::from_str(&printed(&["board", "show", name, "--json"])).unwrap();
        let toml = printed(&["board", "show", name]);
        let toml: toml::de::DeTable<'_> = toml::de::DeTable::parse(&toml).unwrap().into_inner();
        assert_eq!(toml["name"].get_ref().as_str(), shown["name"].as_str());
        assert_eq!(toml.len(), shown.as_object().unwrap().len(), "{name}");

        // What no configuration is made for is no use.
        let file = directory.join("moonlet.toml");
        let text = printed(&["board", "config", name]);
        fs::write(&file, &text).unwrap();
        let loaded = config::load(&file).unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
        assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
        let of_board = |key: &str| shown["config"][key].as_str().map(PathBuf::from);
        let location = of_board("store_path").or(of_board("store_device")).unwrap();
        assert_eq!(loaded.config.store.location.path(), location, "{name}");
        assert!(loaded.config.link.rate_max.is_some(), "{name}");
        let first = text.split("\nname").next().unwrap();
        assert!(first.lines().all(|line| line.is_empty() || line.starts_with("# ")), "{first}");
        assert!(text.lines().all(|line| line.len() <= 110), "{text}");

        accepted(name, &shown["geometry"]);
    }
    fs::remove_dir_all(directory).unwrap();
}

/// The store is made and found again on flash of this shape.
fn accepted(name: &str, geometry: &serde_json::Value) {
    let number = |key: &str| u32::try_from(geometry[key].as_u64().unwrap()).unwrap();
    let geometry = Geometry {
        segment_count: 16,
        segment_bytes: number("segment_bytes"),
        program_bytes: number("program_bytes"),
        reprogram: geometry["reprogram"].as_bool().unwrap(),
    };
    let device = Arc::new(Device::new(geometry));
    for _ in 0..2 {
        let opened = Store::open(Arc::<Device>::clone(&device) as _, Rc::new(Metrics::default()));
        assert!(opened.is_ok(), "{name}: {geometry:?}: {:?}", opened.err().map(|e| e.to_string()));
    }
}

#[test]
fn an_unknown_board_gets_the_nearest_proposed() {
    for verb in ["show", "config"] {
        let (code, out, err) = moonlet(&["board", verb, "rasberry-pi-3"]);
        assert!(code == 2 && out.is_empty(), "{code} {out}");
        assert!(err.contains("no board \"rasberry-pi-3\": did you mean raspberry-pi-3?"), "{err}");
        // It is there to be inherited, and is no board.
        assert_eq!(moonlet(&["board", verb, "base"]).0, 2);
    }
    let (code, _, err) = moonlet(&["board", "shwo"]);
    assert!(code == 2 && err.contains("did you mean show?"), "{err}");
}

const BASE: &str = "why = \"base\"\ntarget = \"aarch64-unknown-linux-musl\"\n\
    [flash]\nback_end = \"file\"\nnote = \"of the base\"\n\
    [geometry]\nsegment_bytes = 65536\nprogram_bytes = 4096\nreprogram = true\nsource = \"b\"\n\
    [config]\nlink_rate_max = \"1MiB/s\"\n\
    [budget]\nbinary_bytes_max = 1\nmemory_idle_bytes_max = 2\nmemory_busy_bytes_max = 3\n";
const LEAF: &str = "inherit = \"middle\"\nname = \"leaf\"\n\
    [config]\nstore_path = \"/s\"\nstore_size_max = \"1GiB\"\n";

fn resolved(leaf: &str) -> Result<String, String> {
    // Tests run side by side: each has a directory of its name.
    let directory = directory(std::thread::current().name().unwrap());
    fs::write(directory.join("base.toml"), BASE).unwrap();
    let middle = "inherit = \"base\"\nwhy = \"middle\"\n[budget]\nbinary_bytes_max = 7\n";
    fs::write(directory.join("middle.toml"), middle).unwrap();
    fs::write(directory.join("leaf.toml"), leaf).unwrap();
    let boards = boards::read(&directory)?;
    assert_eq!(boards.iter().map(|board| &*board.name).collect::<Vec<_>>(), ["leaf"]);
    let template = fs::read_to_string("boards/service/moonlet.toml").unwrap();
    let packed = boards::pack(&boards, &template)?;
    assert!(boards::pack(&boards, "path = \"/s\"\n").unwrap_err().contains("expected 4"));
    fs::remove_dir_all(directory).unwrap();
    // The list, then name, TOML, JSON and configuration of the one board.
    Ok(packed.split(boards::FIELD).nth(2).unwrap().to_owned())
}

#[test]
fn the_nearest_file_wins_key_by_key() {
    let toml = resolved(LEAF).unwrap();
    for line in ["why = \"middle\"", "binary_bytes_max = 7", "memory_idle_bytes_max = 2"] {
        assert!(toml.lines().any(|found| found == line), "no {line} in {toml}");
    }
    let own = LEAF.replace("[config]", "[flash]\nnote = \"its own\"\n[config]");
    let toml = resolved(&own).unwrap();
    assert!(toml.contains("its own") && !toml.contains("of the base"), "{toml}");
}

#[test]
fn mistakes_in_a_board_are_named() {
    let with = |more: &str| resolved(&format!("{LEAF}{more}")).unwrap_err();
    let changed = |from: &str, to: &str| resolved(&LEAF.replace(from, to)).unwrap_err();
    assert!(with("nick = \"x\"\n").contains("unknown key [config] nick"));
    assert!(with("[memory]\nsize = 1\n").contains("unknown key [memory] size"));
    assert!(with("[flash]\nmedium = \"8 GB\"\n").contains("[flash] medium without [flash] source"));
    assert!(with("[geometry]\nprogram_bytes = 0\n").contains("expected a number above 0"));
    assert!(with("[geometry]\nprogram_bytes = 512\n").contains("without [geometry] source"));
    assert!(with("[flash]\nback_end = \"nor\"\n").contains("one of file, block, mtd, ubi"));
    assert!(with("[flash]\nback_end = \"ubi\"\n").contains("else store_device alone"));
    assert!(with("store_device = \"/dev/mtd0\"\n").contains("else store_device alone"));
    assert!(changed("\"leaf\"", "\"other\"").contains("expected name = \"leaf\""));
    assert!(changed("\"middle\"", "\"nothing\"").contains("nothing.toml"));
    assert!(changed("\"middle\"", "\"leaf\"").contains("more than 4 files"));
    assert!(changed("\"middle\"", "7").contains("inherit: expected the name"));
    assert!(changed("\"/s\"", "\"\\\"\"").contains("without quotes"));
    assert!(changed("inherit = \"middle\"\n", "").contains("no why, neither its own"));
}
