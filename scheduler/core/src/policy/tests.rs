//! Claims about the policy document.

use super::*;

fn with(lines: &str) -> String {
    format!("apiVersion: config.berth.dev/v1alpha1\nkind: Policy\n{lines}")
}

#[test]
fn the_default_document_says_what_holds_when_nothing_is_said() {
    let printed = parse(DEFAULT_DOCUMENT).unwrap();
    assert_eq!(printed, Policy::default());
    assert_eq!(parse(&with("")).unwrap(), Policy::default());
}

#[test]
fn a_class_inherits_from_class_default() {
    let policy = parse(&with("classes:\n  default: {placement: spread}\n  big: {weights: {link: 9}}\n")).unwrap();
    let big = policy.class("big").unwrap();
    assert_eq!(big.placement, Placement::Spread);
    assert_eq!(big.weights, Weights { gpu: 3, cpu: 1, memory: 1, link: 9, kept: 2, left: 8 });
    assert_eq!(policy.class("training"), None, "classes replace the built-in ones");
}

#[test]
fn all_turns_the_short_list_off() {
    let policy = parse(&with("shortList: {size: all, perZone: 0}\n")).unwrap();
    assert_eq!(policy.short_list(), ShortList { size: None, size_soft: Some(256), per_zone: 0 });
}

#[test]
fn what_is_wrong_is_named_with_line_and_column() {
    for (lines, line, column, said) in [
        ("topolgy: {}\n", 3, 1, "unknown field `topolgy`"),
        ("topology:\n  stale: maybe\n", 4, 10, "topology.stale: \"maybe\" is none of deprioritize, reject, ignore"),
        ("topology: {staleAfterSeconds: 0}\n", 3, 31, "between 1 and 86400"),
        ("shortList: {size: none}\n", 3, 19, "shortList.size"),
        ("order: {softSteps: 99}\n", 3, 20, "between 1 and 16"),
        ("defaultClass: nope\n", 3, 15, "defaultClass: \"nope\" is none of the classes default"),
        (
            "classes:\n  a: {weights: {gpu: 0, cpu: 0, memory: 0, link: 0, kept: 0}}\ndefaultClass: a\n",
            4,
            16,
            "above 0",
        ),
        ("classes:\n  default: {weights: {gpu: -1}}\n", 4, 28, "classes.default.weights.gpu: a whole number is right"),
        ("levels: {level: advice}\n", 3, 9, "levels: a list is right"),
        ("left: [1]\n", 3, 7, "left: keys with values are right"),
        ("left: {learnedPods: -1}\n", 3, 21, "left.learnedPods: a whole number is right"),
        ("classes:\n  default: {link: nvlnk}\n", 4, 19, "classes.default.link: \"nvlnk\" is not nvlink, pix"),
        ("resources: {gpu: [cpu]}\n", 3, 19, "no extended resource"),
        ("resources: {gpu: [a.b/c, a.b/c]}\n", 3, 26, "twice"),
        ("resources: {gpu: []}\n", 3, 18, "1 to 16"),
        (
            "levels: [{nodeSelector: {a: b}, level: L2}]\n",
            3,
            40,
            "levels.level: \"L2\" is none of advice, preferred, enforced",
        ),
        ("levels: [{level: advice}]\n", 3, 0, "levels[0]: missing field `nodeSelector`"),
        (
            "levels: [{nodeSelector: {a: b}, level: preferred, evictAfterSeconds: 9}]\n",
            3,
            0,
            "only pods at level enforced",
        ),
        ("levels: [{nodeSelector: {a: b}, level: enforced, evictAfterSeconds: 0}]\n", 3, 0, "between 1 and 86400"),
        ("kind: Policy\n", 3, 1, "kind"),
        ("  bad: [\n", 3, 0, ""),
    ] {
        let error = parse(&with(lines)).unwrap_err();
        assert_eq!(error.line, line, "{lines}: {error}");
        assert!(column == 0 || error.column == column, "{lines}: {error}");
        assert!(error.message.contains(said), "{lines}: {error}");
    }
}

#[test]
fn another_version_or_kind_is_refused() {
    let error = parse("apiVersion: config.berth.dev/v2\nkind: Policy\n").unwrap_err();
    assert_eq!((error.line, error.column), (1, 13));
    assert!(error.message.contains("config.berth.dev/v1alpha1 is right"), "{error}");
    assert!(parse("kind: Policy\n").unwrap_err().message.contains("apiVersion"));
    assert!(parse("").is_err());
}

#[test]
fn expected_pods_are_read_and_what_cannot_be_is_refused_with_its_key() {
    let one = |kind: &str| parse(&with(&format!("expected:\n- {kind}\n")));
    assert_eq!(Policy::default().expected(), None);
    let share = one("{gpus: 1, gpuMilli: 470, cpuMilli: 6000, weight: 24}").unwrap();
    let kind = Typical { gpu_count: 1, gpu_milli: 470, cpu_milli: 6000 };
    assert_eq!(share.expected(), Policy::default().expecting(&[(kind, 24)]).expected());
    assert_eq!((share.seed(), Policy::default().seed()), (&[(kind, 24)][..], &[][..]));
    for (kind, said) in [
        ("{gpus: 2, gpuMilli: 470, cpuMilli: 1, weight: 1}", "expected[0].gpuMilli: only a pod of one GPU"),
        ("{gpus: 1, gpuMilli: 1001, cpuMilli: 1, weight: 1}", "expected[0].gpuMilli: 1001 is not between 1 and 1000"),
        ("{gpus: 1, cpuMilli: 1, weight: 0}", "expected[0].weight: 0 is not between"),
        ("{gpus: 33, cpuMilli: 1, weight: 1}", "expected[0].gpus: 33 is not between 0 and 32"),
    ] {
        let error = one(kind).unwrap_err();
        assert!(error.message.contains(said), "{}", error.message);
        assert_eq!(error.line, 4, "{}", error.message);
    }
    assert_eq!(parse(&with("left: {learnedPods: 0}\n")).unwrap().learned_pods(), 0);
    for (left, said) in [
        ("stepMilli: 0", "left.stepMilli: 0 is not between 1 and 1000"),
        ("scarceRoots: 0", "left.scarceRoots: 0 is not between 1 and 1000"),
        ("scarcePermille: 10001", "left.scarcePermille: 10001 is not between 0 and 10000"),
    ] {
        let error = parse(&with(&format!("left: {{{left}}}\n"))).unwrap_err();
        assert!(error.message.contains(said), "{}", error.message);
    }
}
