"""Redfish trees of devices, made for our tests after DSP8010 2025.4: a CDU, a loop, a PDU, a power shelf, servers."""

from tests.servers.redfish_service import Json, collect, link

ENABLED = {"State": "Enabled", "Health": "OK"}
CDU = "ThermalEquipment/CDUs/1"
LOOP = "ThermalEquipment/CoolingLoops/tcs"
PDU = "PowerEquipment/RackPDUs/1"
SHELF = "PowerEquipment/PowerShelves/1"


def reading(value: object, sensor: str = "", **more: object) -> Json:
    """A sensor excerpt."""
    source = {"DataSourceUri": f"/redfish/v1/{sensor}"} if sensor else {}
    return {"Reading": value, **source, **more}


def connector(**readings: object) -> Json:
    excerpts = {name: reading(value) if isinstance(value, int | float) else value for name, value in readings.items()}
    return {"Status": ENABLED, "CoolantConnectorType": "Pair", **excerpts}


def root(*names: str, **more: object) -> Json:
    links = {name: link(name) for name in names}
    return {"RedfishVersion": "1.20.0", "Links": {"Sessions": link("SessionService/Sessions")}, **links, **more}


def cdu_tree() -> dict[str, Json]:
    """A CDU with a pair of connectors, two pumps, a reservoir, two leak detectors and some sensors of its chassis."""
    sensors = "Chassis/cdu/Sensors"
    return collect(
        {
            "": root("ThermalEquipment", "Chassis"),
            "ThermalEquipment": {"CDUs": link("ThermalEquipment/CDUs")},
            CDU: {
                "Id": "1",
                "Name": "Row CDU",
                "EquipmentType": "CDU",
                "Manufacturer": "Coolworks",
                "Model": "C1300",
                "SerialNumber": "CW-000123",
                "FirmwareVersion": "2.4.1",
                "CoolingCapacityWatts": 1_300_000,
                "Status": ENABLED,
                "PumpRedundancy": [{"RedundancyType": "NPlusM", "Status": ENABLED}],
                "PrimaryCoolantConnectors": link(f"{CDU}/PrimaryCoolantConnectors"),
                "SecondaryCoolantConnectors": link(f"{CDU}/SecondaryCoolantConnectors"),
                "Pumps": link(f"{CDU}/Pumps"),
                "Reservoirs": link(f"{CDU}/Reservoirs"),
                "LeakDetection": link(f"{CDU}/LeakDetection"),
                "EnvironmentMetrics": link(f"{CDU}/EnvironmentMetrics"),
                "Links": {"Chassis": [link("Chassis/cdu")]},
            },
            f"{CDU}/PrimaryCoolantConnectors/1": connector(
                FlowLitersPerMinute=reading(900.0, f"{sensors}/PrimaryFlow"),
                SupplyTemperatureCelsius=30.5,
                ReturnTemperatureCelsius=41.25,
                DeltaTemperatureCelsius=10.75,
                SupplyPressurekPa=310,
                HeatRemovedkW=650.0,
                ValvePositionPercent=62.5,
                Coolant={"CoolantType": "Water"},
            ),
            f"{CDU}/SecondaryCoolantConnectors/1": connector(
                FlowLitersPerMinute=1200,
                SupplyTemperatureCelsius=36,
                ReturnTemperatureCelsius=44.5,
                SupplyPressurekPa=250.5,
                DeltaPressurekPa=120,
                HeatRemovedkW=655.5,
                Coolant={
                    "CoolantType": "Water",
                    "AdditiveName": "propylene glycol",
                    "AdditivePercent": 25,
                    "SpecificHeatkJoulesPerKgK": 3.97,
                },
            ),
            f"{CDU}/Pumps/1": {"Status": ENABLED, "PumpSpeedPercent": reading(55, SpeedRPM=3000), "ServiceHours": 1000},
            f"{CDU}/Pumps/2": {"Status": ENABLED, "PumpSpeedPercent": reading(60.5)},
            f"{CDU}/Reservoirs/1": {"Status": ENABLED, "FluidLevelPercent": reading(87.5)},
            f"{CDU}/LeakDetection": {"LeakDetectors": link(f"{CDU}/LeakDetection/LeakDetectors"), "Status": ENABLED},
            f"{CDU}/LeakDetection/LeakDetectors/1": {"Name": "Drip tray", "DetectorState": "OK", "Status": ENABLED},
            f"{CDU}/LeakDetection/LeakDetectors/2": {
                "Name": "Manifold",
                "DetectorState": "OK",
                "LeakDetectorType": "Moisture",
                "CriticalReactionType": "ForceOff",
                "Status": ENABLED,
            },
            f"{CDU}/EnvironmentMetrics": {
                "PowerWatts": reading(8200, ApparentVA=8500, PowerFactor=0.96),
                "EnergykWh": reading(4000.5),
                "DewPointCelsius": reading(9.5),
                "HumidityPercent": reading(41),
            },
            "Chassis/cdu": {
                "ChassisType": "StandAlone",
                "Sensors": link(sensors),
                "Links": {"CoolingUnits": [link(CDU)]},
            },
            f"{sensors}/PrimaryFlow": sensor("LiquidFlowLPM", "L/min", 900.0),
            f"{sensors}/MakeUpFlow": sensor("LiquidFlow", "L/s", 0.25),
            f"{sensors}/FillPressure": sensor("Pressure", "Pa", 180_000),
            f"{sensors}/Conductivity": sensor("", "uS/cm", 95.5),
            f"{sensors}/Unplugged": {**sensor("Temperature", "Cel", 12), "Status": {"State": "Absent"}},
        }
    )


def sensor(reading_type: str, units: str, value: object, **more: object) -> Json:
    return {"ReadingType": reading_type, "ReadingUnits": units, "Reading": value, "Status": ENABLED, **more}


def loop_tree() -> dict[str, Json]:
    return collect(
        {
            "": root("ThermalEquipment"),
            "ThermalEquipment": {"CoolingLoops": link("ThermalEquipment/CoolingLoops")},
            LOOP: {
                "Name": "Hall loop",
                "CoolingLoopType": "RowTCS",
                "Status": {"State": "Enabled", "Health": "OK", "HealthRollup": "Warning"},
                "CoolantLevelPercent": reading(91),
                "RatedFlowLitersPerMinute": 6000,
                "PrimaryCoolantConnectors": link(f"{LOOP}/PrimaryCoolantConnectors"),
                "SecondaryCoolantConnectors": link(f"{LOOP}/SecondaryCoolantConnectors"),
            },
            f"{LOOP}/PrimaryCoolantConnectors/1": connector(
                FlowLitersPerMinute=6000, SupplyTemperatureCelsius=29, ReturnTemperatureCelsius=40, HeatRemovedkW=4500
            ),
            f"{LOOP}/SecondaryCoolantConnectors/a": connector(
                FlowLitersPerMinute=1000, SupplyTemperatureCelsius=35, ReturnTemperatureCelsius=45
            ),
            f"{LOOP}/SecondaryCoolantConnectors/b": connector(
                FlowLitersPerMinute=3000, SupplyTemperatureCelsius=35, ReturnTemperatureCelsius=43
            ),
        }
    )


def pdu_tree() -> dict[str, Json]:
    """A three-phase rack PDU with a mains circuit, a single-phase branch that has tripped, and an outlet."""
    return collect(
        {
            "": root("PowerEquipment"),
            "PowerEquipment": {"RackPDUs": link("PowerEquipment/RackPDUs")},
            PDU: {
                "Name": "PDU A",
                "EquipmentType": "RackPDU",
                "Manufacturer": "Plugs",
                "Model": "P43",
                "SerialNumber": "PL-77",
                "PowerCapacityVA": 43_000,
                "Status": ENABLED,
                "Metrics": link(f"{PDU}/Metrics"),
                "Mains": link(f"{PDU}/Mains"),
                "Branches": link(f"{PDU}/Branches"),
                "Outlets": link(f"{PDU}/Outlets"),
            },
            f"{PDU}/Metrics": {
                "PowerWatts": reading(21_000, ReactiveVAR=2100, PowerFactor=0.995, ApparentVA=21_105),
                "EnergykWh": reading(56_438.2, LifetimeReading=99_000),
                "PowerLoadPercent": reading(49),
            },
            f"{PDU}/Mains/AC1": {
                "Name": "Mains",
                "Status": ENABLED,
                "CircuitType": "Mains",
                "PhaseWiringType": "ThreePhase5Wire",
                "BreakerState": "Normal",
                "PowerWatts": reading(21_000),
                "EnergykWh": reading(56_438.2),
                "FrequencyHz": reading(50.02),
                "PolyPhaseVoltage": {
                    "Line1ToLine2": reading(401),
                    "Line2ToLine3": reading(399),
                    "Line3ToLine1": reading(402.5),
                    "Line1ToNeutral": reading(231),
                },
                "PolyPhaseCurrentAmps": {"Line1": reading(30), "Line2": reading(31.5), "Line3": reading(29.4)},
            },
            f"{PDU}/Branches/B1": {
                "Status": ENABLED,
                "PhaseWiringType": "OnePhase3Wire",
                "BreakerState": "Tripped",
                "Voltage": reading(230.5),
                "CurrentAmps": reading(0),
                "PowerWatts": reading(0),
            },
            f"{PDU}/Outlets/1": {"Status": ENABLED, "PowerWatts": reading(350.5), "EnergykWh": reading(12)},
        }
    )


def shelf_tree(serial: str = "SH-1", *, power: float = 16_500, energy: float = 1000.5) -> dict[str, Json]:
    """A power shelf with three power supplies: one well, one broken, one in reserve; and an empty slot."""
    supplies = "Chassis/shelf/PowerSubsystem/PowerSupplies"
    return collect(
        {
            "": root("PowerEquipment", "Chassis"),
            "PowerEquipment": {"PowerShelves": link("PowerEquipment/PowerShelves")},
            SHELF: {
                "Name": "Power shelf",
                "EquipmentType": "PowerShelf",
                "SerialNumber": serial,
                "Status": ENABLED,
                "Metrics": link(f"{SHELF}/Metrics"),
                "Links": {"Chassis": [link("Chassis/shelf")]},
            },
            f"{SHELF}/Metrics": {"PowerWatts": reading(power), "EnergykWh": reading(energy)},
            "Chassis/shelf": {"ChassisType": "Shelf", "PowerSubsystem": link("Chassis/shelf/PowerSubsystem")},
            "Chassis/shelf/PowerSubsystem": {"PowerSupplies": link(supplies)},
            f"{supplies}/1": {"Status": ENABLED},
            f"{supplies}/2": {"Status": {"State": "Enabled", "Health": "Critical"}},
            f"{supplies}/3": {"Status": {"State": "StandbySpare", "Health": "OK"}},
            f"{supplies}/4": {"Status": {"State": "Absent"}},
        }
    )


def rack_tree() -> dict[str, Json]:
    """A rack's own controller: its manifold's connector, its air, and leak detectors that come in a group."""
    thermal = "Chassis/rack/ThermalSubsystem"
    detector = f"{thermal}/LeakDetection/LeakDetectors/1"
    return collect(
        {
            "": root("Chassis"),
            "Chassis/rack": {"ChassisType": "Rack", "ThermalSubsystem": link(thermal)},
            thermal: {
                "ThermalMetrics": link(f"{thermal}/ThermalMetrics"),
                "CoolantConnectors": link(f"{thermal}/CoolantConnectors"),
                "LeakDetection": link(f"{thermal}/LeakDetection"),
            },
            f"{thermal}/ThermalMetrics": {"TemperatureSummaryCelsius": {"Intake": reading(24.5)}},
            f"{thermal}/CoolantConnectors/1": connector(
                FlowLitersPerMinute=168,
                SupplyTemperatureCelsius=36.5,
                ReturnTemperatureCelsius=46,
                DeltaPressurekPa=85.5,
                HeatRemovedkW=112,
                ValvePositionPercent=75,
            ),
            f"{thermal}/LeakDetection": {
                "Status": ENABLED,
                "LeakDetectors": link(f"{thermal}/LeakDetection/LeakDetectors"),
                "LeakDetectorGroups": [
                    {"Detectors": [{"DetectorState": "OK", "DataSourceUri": f"/redfish/v1/{detector}"}]}
                ],
            },
            detector: {"Name": "Rope", "DetectorState": "OK", "Status": ENABLED},
        }
    )


def server_tree() -> dict[str, Json]:
    """A compute tray of today: a board within its chassis, and a leak detector."""
    tray = "Chassis/tray"
    return collect(
        {
            "": root("Chassis"),
            tray: {
                "Name": "Compute tray",
                "ChassisType": "RackMount",
                "Manufacturer": "Boards",
                "Model": "NVL",
                "SerialNumber": "BT-5",
                "EnvironmentMetrics": link(f"{tray}/EnvironmentMetrics"),
                "ThermalSubsystem": link(f"{tray}/ThermalSubsystem"),
                "Sensors": link(f"{tray}/Sensors"),
                "Links": {"ComputerSystems": [link("Systems/node")]},
            },
            "Systems/node": {"SerialNumber": "SN-77", "UUID": "4C4C4544-0042-3510-8052-B4C04F4D3132"},
            f"{tray}/EnvironmentMetrics": {"PowerWatts": reading(5400.5), "EnergyJoules": reading(1_000_000)},
            f"{tray}/ThermalSubsystem": {
                "ThermalMetrics": link(f"{tray}/ThermalSubsystem/ThermalMetrics"),
                "LeakDetection": link(f"{tray}/ThermalSubsystem/LeakDetection"),
            },
            f"{tray}/ThermalSubsystem/ThermalMetrics": {"TemperatureSummaryCelsius": {"Intake": reading(27.5)}},
            f"{tray}/ThermalSubsystem/LeakDetection": {
                "LeakDetectors": link(f"{tray}/ThermalSubsystem/LeakDetection/LeakDetectors")
            },
            f"{tray}/ThermalSubsystem/LeakDetection/LeakDetectors/1": {"DetectorState": "OK", "Status": ENABLED},
            f"{tray}/Sensors/Fan1": sensor("Rotational", "RPM", 9000),
            "Chassis/board": {
                "ChassisType": "Sled",
                "EnvironmentMetrics": link("Chassis/board/EnvironmentMetrics"),
                "Links": {"ContainedBy": link(tray)},
            },
            "Chassis/board/EnvironmentMetrics": {"PowerWatts": reading(4000)},
        }
    )


def old_server_tree() -> dict[str, Json]:
    """A server with the resources that were deprecated in 2020.4."""
    chassis = "Chassis/1"
    return collect(
        {
            "": root("Chassis"),
            chassis: {
                "ChassisType": "RackMount",
                "SerialNumber": "OLD-9",
                "Power": link(f"{chassis}/Power"),
                "Thermal": link(f"{chassis}/Thermal"),
            },
            f"{chassis}/Power": {
                "PowerControl": [{"PowerConsumedWatts": 742}, {"PhysicalContext": "CPU", "PowerConsumedWatts": 200}]
            },
            f"{chassis}/Thermal": {
                "Temperatures": [
                    {"PhysicalContext": "CPU", "ReadingCelsius": 71, "Status": ENABLED},
                    {"PhysicalContext": "Intake", "ReadingCelsius": 23, "Status": ENABLED},
                    {"PhysicalContext": "Intake", "ReadingCelsius": 25.5, "Status": ENABLED},
                    {"PhysicalContext": "Intake", "ReadingCelsius": 99, "Status": {"State": "Absent"}},
                ]
            },
        }
    )
