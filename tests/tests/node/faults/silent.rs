//! What breaks without an event or in silence: facts that change under the agent, a driver that hangs as a whole, a function that is
//! plugged in, and an agent that starts anew beside a broken GPU.

use anyhow::{Context, Result};
use berth_machine::render;
use berth_model::{Driver, GpuDetail, Health, Parts, Sriov};
use berth_probe::tree::{Entry, MemoryTree};
use berth_tests::installed::on_agent_only;
use berth_tests::made_node::{MadeNode, machine_file};

use super::{MACHINE, NEVER, Stage, facts, made_node, node_name, unhealthy};

/// The machine with facts that all its GPUs tell besides.
fn node_with(facts: &str) -> Result<MadeNode> {
    let text = std::fs::read_to_string(machine_file(MACHINE))?;
    let (before, after) = text.split_once("mig: false}").context("the machine file says nothing of MIG")?;
    MadeNode::of_text(&format!("{before}mig: false, {facts}}}{after}"), &node_name())
}

/// The report with one GPU's detail and health taken out: the rest must be as before.
fn without(gpu: usize, mut parts: Parts) -> Result<Parts> {
    let gpu = parts.gpus.get_mut(gpu).context("no such GPU")?;
    (gpu.detail, gpu.health, gpu.mig_enabled) = (GpuDetail::default(), Health::Healthy, None);
    Ok(facts(parts))
}

#[test]
fn memory_that_wears_out_costs_its_gpu_until_a_reset() -> Result<()> {
    on_agent_only(async |site| {
        let worn = "rowsCorrectable: 0, eccVolatile: 0, retirementPending: false";
        let mut stage = Stage::over(site, node_with(worn)?, "100ms", &[]).await?;
        for (facts, why) in [
            ("remapPending: true", "drain and reset: a bad row of its memory waits to be remapped"),
            (
                "rowsUncorrectable: 1, remapFailed: true",
                "drain and replace: a bad row of its memory could not be remapped",
            ),
            ("retirementPending: true", "drain and reset: bad pages of its memory wait to be retired"),
            ("eccVolatile: 2", "drain and reset: uncorrectable memory errors since the driver was loaded"),
        ] {
            stage.node.set_faults(&format!("changed: [{{gpu: 3, facts: {{{facts}}}}}]"))?;
            let said = stage.when(|said| said.gpus[3].health == unhealthy(why)).await?;
            assert_eq!(without(3, said)?, without(3, stage.whole.clone())?, "{facts} changes something else");
            // A count alone is told and costs nothing.
            stage.node.set_faults("changed: [{gpu: 3, facts: {rowsCorrectable: 1}}]")?;
            let counted = |parts: &Parts| parts.gpus[3].detail.wear.remap.map(|remap| remap.correctable) == Some(1);
            let said = stage.when(|said| counted(said) && said.gpus[3].health == Health::Healthy).await?;
            assert_eq!(without(3, said)?, without(3, stage.whole.clone())?);
            stage.node.set_faults("")?;
            stage.when_healed().await?;
        }
        Ok(())
    })
}

#[test]
fn mig_instances_that_come_and_go_are_told_and_the_others_keep_their_names() -> Result<()> {
    on_agent_only(async |site| {
        // By the clock nothing would be read again: each change is told by its event.
        let mut stage = Stage::over(site, node_with("migProfiles: h100-80")?, NEVER, &[]).await?;
        let mut event = 0;
        let mut change = async |stage: &mut Stage, now: &str, expected: &[&str]| -> Result<Parts> {
            event += 1;
            let events = format!("events: [{{id: {event}, gpu: 5, migConfig: true}}]");
            stage.node.set_faults(&format!("changed: [{{gpu: 5, facts: {{{now}}}}}]\n{events}"))?;
            let places = |parts: &Parts| {
                let text =
                    |i: &berth_model::mig::MigInstance| i.to_string().split(' ').next().unwrap_or_default().to_owned();
                parts.gpus[5].detail.mig_instances.iter().map(text).collect::<Vec<_>>()
            };
            let on = now.contains("mig: true");
            let said = stage.when(|said| places(said) == expected && said.gpus[5].mig_enabled == Some(on)).await?;
            assert_eq!(without(5, said.clone())?, without(5, stage.whole.clone())?, "{now} changes something else");
            Ok(said)
        };
        let said = change(&mut stage, "mig: true, migInstances: none", &[]).await?;
        assert_eq!(said.gpus[5].detail.board.mig.profiles().len(), 7, "the profiles come with the mode");
        let one = change(&mut stage, "mig: true, migInstances: 3g.40gb@4+4", &["3g.40gb@4+4"]).await?;
        let two = "mig: true, migInstances: 1g.10gb@0+1; 3g.40gb@4+4";
        let both = change(&mut stage, two, &["1g.10gb@0+1", "3g.40gb@4+4"]).await?;
        assert_eq!(both.gpus[5].detail.mig_instances[1], one.gpus[5].detail.mig_instances[0]);
        change(&mut stage, "mig: true, migInstances: 1g.10gb@0+1", &["1g.10gb@0+1"]).await?;
        let off = change(&mut stage, "mig: false", &[]).await?;
        assert_eq!(off.gpus[5].detail, stage.whole.gpus[5].detail);
        Ok(())
    })
}

#[test]
fn a_gpu_that_is_lost_without_an_event_keeps_its_name_and_the_others_their_links() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, "100ms", &[]).await?;
        for (fault, why) in [
            ("lost: [3]", "NVML: the GPU is lost"),
            ("resetRequired: [3]", "NVML: the GPU needs a reset"),
            ("unreadable: [3]", "NVML: unknown error"),
        ] {
            stage.node.set_faults(fault)?;
            let (health, rest) = stage.when_sick(3).await?;
            assert_eq!((health, facts(rest)), (unhealthy(why), facts(stage.whole.clone())), "{fault}");
            stage.node.set_faults("")?;
            stage.when_healed().await?;
        }
        Ok(())
    })
}

#[test]
fn a_driver_that_was_loaded_anew_is_asked_anew_and_tells_its_events() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, "100ms", &[]).await?;
        let opened =
            |stage: &Stage| Ok::<_, anyhow::Error>(stage.node.nvml_calls()?.get("nvmlInit_v2").copied().unwrap_or(0));
        let before = opened(&stage)?;
        // GPU 2 has an Xid against it, of which the driver knows nothing any more.
        stage.node.set_faults("events: [{id: 1, gpu: 2, xid: 48}]")?;
        stage.when_sick(2).await?;
        stage.node.set_faults("events: [{id: 1, gpu: 2, xid: 48}]\nreloads: 1")?;
        stage.when_healed().await?;
        assert_eq!(opened(&stage)?, before + 1, "once");
        stage.node.set_faults("events: [{id: 2, gpu: 6, xid: 48}]\nreloads: 1")?;
        let (health, rest) = stage.when_sick(6).await?;
        let expected = (unhealthy("Xid 48: double-bit ECC error"), facts(stage.whole.clone()));
        assert_eq!((health, facts(rest)), expected);
        Ok(())
    })
}

#[test]
fn a_driver_that_does_not_count_its_gpus_costs_them_and_nothing_else() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, "100ms", &[]).await?;
        stage.node.set_faults("callsFailing: [nvmlDeviceGetCount_v2]")?;
        let absent =
            |parts: &Parts| matches!(&parts.driver, Driver::Absent(why) if why.starts_with("GPUs cannot be counted"));
        let said = stage.when(absent).await?;
        assert_eq!((&said.nics, &said.zones, said.gpus.len()), (&stage.whole.nics, &stage.whole.zones, 0));
        assert_eq!(facts(said), facts(stage.node.topology(None)?.into_parts()));
        stage.node.set_faults("")?;
        stage.when_healed().await
    })
}

#[test]
fn a_driver_that_hangs_as_a_whole_silences_its_gpus_and_the_kernel_is_read_on() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, "100ms", &["--gpu-timeout", "300ms"]).await?;
        stage.node.set_faults("driver: hangs")?;
        let silent = unhealthy("NVML: the driver does not return from a call about it");
        let mut said = stage.when(|said| said.gpus.iter().all(|gpu| gpu.health == silent)).await?;
        assert_eq!((&said.driver, said.gpus.len()), (&stage.whole.driver, 8));
        said.gpus.iter_mut().for_each(|gpu| gpu.health = Health::Healthy);
        assert_eq!((&said.gpus, &said.nics, &said.zones), (&stage.whole.gpus, &stage.whole.nics, &stage.whole.zones));
        let name = stage.whole.nics[3].name.clone();
        stage.node.set_faults(&format!("driver: hangs\nportsDown: [{name}]"))?;
        stage.when(|said| said.nics[3].state != stage.whole.nics[3].state).await?;
        stage.node.set_faults("")?;
        stage.when_healed().await
    })
}

#[test]
fn a_driver_that_hangs_from_the_start_is_no_driver_until_it_answers() -> Result<()> {
    on_agent_only(async |site| {
        let mut node = made_node()?;
        node.set_faults("driver: hangs")?;
        let mut stage = Stage::over(site, node, "100ms", &["--gpu-timeout", "300ms"]).await?;
        assert_eq!(stage.whole.driver, Driver::Absent(berth_probe::facts::DRIVER_HUNG.to_owned()));
        assert_eq!((stage.whole.gpus.len(), stage.whole.nics.len(), stage.whole.zones.len()), (0, 12, 2));
        stage.node.set_faults("")?;
        let whole = facts(stage.node.topology(None)?.into_parts());
        stage.when(|said| facts(said.clone()) == whole).await?;
        Ok(())
    })
}

#[test]
fn a_virtual_function_that_is_plugged_in_is_told_at_its_nic() -> Result<()> {
    on_agent_only(async |site| {
        let stage = Stage::new(site, "100ms", &[]).await?;
        let nic = "sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0/0000:18:00.0";
        let function = nic.replace("18:00.0", "18:00.1");
        let mut tree = MemoryTree::default();
        for (path, text) in [
            (format!("{nic}/sriov_totalvfs"), "16"),
            (format!("{nic}/sriov_numvfs"), "1"),
            (format!("{function}/class"), "0x020700"),
            (format!("{function}/vendor"), "0x15b3"),
        ] {
            tree.put_line(path, text);
        }
        tree.put(format!("{function}/physfn"), Entry::Link("../0000:18:00.0".to_owned()));
        let entry = "sys/bus/pci/devices/0000:18:00.1";
        tree.put(entry, Entry::Link(function.replacen("sys/", "../../../", 1)));
        render::write(&tree, &stage.node.root())?;
        let mut said = stage.when(|said| !said.nics[0].function.virtual_functions.is_empty()).await?;
        let plugged = std::mem::take(&mut said.nics[0].function);
        assert_eq!(plugged.sriov, Some(Sriov { function_count_max: 16, function_count: 1 }));
        assert_eq!(plugged.virtual_functions[0].pci.to_string(), "0000:18:00.1");
        assert_eq!(facts(said), facts(stage.whole.clone()), "something else changed with it");
        std::fs::remove_file(stage.node.root().join(entry))?;
        stage.when(|said| said.nics[0].function.virtual_functions.is_empty()).await?;
        Ok(())
    })
}

#[test]
fn an_agent_that_starts_anew_knows_what_xids_said_before() -> Result<()> {
    on_agent_only(async |site| {
        let mut stage = Stage::new(site, NEVER, &[]).await?;
        let events =
            "events: [{id: 1, gpu: 1, xid: 79}, {id: 2, gpu: 2, xid: 94}, {id: 3, gpu: 4, xid: 48}]\nlost: [4]";
        stage.node.set_faults(events)?;
        let lost = unhealthy("NVML: the GPU is lost; Xid 48: double-bit ECC error");
        let said = stage.when(|said| said.gpus[4].health == lost).await?;
        assert_eq!(said.gpus[1].health, unhealthy("Xid 79: the GPU fell off the bus"));
        assert_eq!(said.gpus[2].health, Health::Unknown("Xid 94: contained memory error".to_owned()));
        // While no agent ran, GPU 4 was reset; the new one's library has told nothing yet and has nothing to tell.
        stage.agent.kill()?;
        stage.node.set_faults("events: [{id: 9, gpu: 6, xid: 48}]")?;
        stage.agent.restart()?;
        let said = stage.when(|said| said.gpus[6].health != Health::Healthy).await?;
        assert_eq!(said.gpus[1].health, unhealthy("Xid 79: the GPU fell off the bus"));
        assert_eq!(said.gpus[2].health, Health::Unknown("Xid 94: contained memory error".to_owned()));
        assert_eq!(said.gpus[4].health, Health::Healthy);
        // A reboot ends it all.
        stage.agent.kill()?;
        stage.node.set_faults("")?;
        stage.node.reboot("11111111-2222-3333-4444-555555555555")?;
        stage.agent.restart()?;
        let mut said = stage.when(|said| said.boot_id != stage.whole.boot_id).await?;
        said.boot_id = stage.whole.boot_id.clone();
        assert_eq!(facts(said), facts(stage.whole.clone()));
        Ok(())
    })
}
