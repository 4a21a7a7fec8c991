from tfconvbias.training.engine import devices


def test_each_process_has_a_gpu_of_its_own_and_its_share_of_the_threads(monkeypatch):
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "NPROC"):
        monkeypatch.delenv(name, raising=False)
    shares = [devices.share(place, 3, ["0", "1", "2"], cpus=16) for place in range(3)]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["0", "1", "2"]
    assert {share["OMP_NUM_THREADS"] for share in shares} == {"5"}
    assert "TF_FORCE_GPU_ALLOW_GROWTH" not in shares[0]
    # More processes than GPUs: two of them share one, and neither takes all of its memory.
    shares = [devices.share(place, 3, ["a", "b"], cpus=2) for place in range(3)]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["a", "b", "a"]
    assert all(share["TF_FORCE_GPU_ALLOW_GROWTH"] == "true" for share in shares)
    assert {share["OMP_NUM_THREADS"] for share in shares} == {"1"}
    assert "CUDA_VISIBLE_DEVICES" not in devices.share(0, 2, [], cpus=2)


def test_the_users_own_settings_stay(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert devices.share(0, 2, [], cpus=4)["OMP_NUM_THREADS"] == "7"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert devices.gpus() == ["3", "5"]
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert devices.gpus() == []


def test_gpus_are_found_without_a_framework(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho GPU-1\necho GPU-2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert devices.gpus() == ["GPU-1", "GPU-2"]
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert devices.gpus() == []
